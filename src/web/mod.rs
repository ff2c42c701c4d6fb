//! How it is served: a bounded HTTP server over views that it is handed, with TLS and passwords if a web configuration says
//! so. Routes are one pure function, [`respond`].
//! Never knows what a metric or a source is, never asks a platform, never waits for anything but its own sockets, and for
//! the reload that somebody asks for.

pub mod access;
mod auth;
mod config;
mod landing;
mod lifecycle;
mod negotiate;
mod places;
mod serve;
mod tls;
mod watched;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderName, HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

pub use landing::{Health, Landing, LandingGate, LandingNote, LandingRow};
pub use negotiate::{Format, Wanted};
pub use serve::serve;

pub(crate) use auth::credentials;

/// What the server shows. Every call but a reload returns at once: a scrape waits for nothing.
pub trait View: Send + Sync + 'static {
    /// The current exposition, in the format that is wanted.
    fn metrics(&self, wanted: Wanted) -> Scrape;
    /// This exposition was handed out.
    fn scraped(&self, generation: u64);
    /// Whether every source has ended its first round.
    fn ready(&self) -> bool;
    /// Whether the process's own loops run.
    fn healthy(&self) -> bool;
    /// The state of all sources, as a JSON document.
    fn status_json(&self) -> String;
    /// The same for the landing page.
    fn landing(&self) -> Landing;
    /// Reads the configuration anew. What has come of it, in words.
    fn reload(&self) -> impl Future<Output = Result<String, String>> + Send;
}

/// What stands before the end of an exposition.
pub enum Pieces {
    /// What all scrapes share; a scrape copies none of it.
    Ready(Arc<[Bytes]>),
    /// What is made piece by piece, when the client has taken the one before.
    Made {
        /// How much it is.
        bytes: u64,
        /// In order.
        pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    },
}

impl Default for Pieces {
    fn default() -> Self {
        Self::Ready(Arc::default())
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.bytes())
    }
}

impl Pieces {
    fn bytes(&self) -> u64 {
        match self {
            Self::Ready(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Self::Made { bytes, .. } => *bytes,
        }
    }
}

/// One exposition, in pieces that need not be copied together.
#[derive(Debug)]
pub struct Scrape {
    /// Which snapshot it shows: what [`View::scraped`] is told, since a newer one may be there by then.
    pub generation: u64,
    /// All but its end.
    pub body: Pieces,
    /// What comes behind it.
    pub end: Bytes,
    /// Whether the two are one gzip member; only if that was wanted.
    pub gzipped: bool,
}

/// How it is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path of the exposition. It wins over every other route.
    pub telemetry_path: String,
    /// Whether `POST /-/reload` is carried out.
    pub enable_lifecycle: bool,
    /// TLS and passwords. None: plain HTTP, for everybody.
    pub access: Option<Arc<access::Access>>,
}

/// What is read of a request. Queries and bodies are not.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, without the query.
    pub path: &'a str,
    /// The headers, for what the client accepts.
    pub headers: &'a HeaderMap,
    /// Whether a body came along.
    pub has_body: bool,
}

/// An answer, and the generation of the exposition in it.
#[derive(Debug)]
pub struct Answer {
    /// What is sent.
    pub response: Response<Frames>,
    /// Set if the answer is an exposition.
    pub scraped: Option<u64>,
    /// Whether the answer is to be what comes of a reload instead.
    pub reload: bool,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer to a request.
#[must_use]
pub fn respond(asked: Asked<'_>, view: &impl View, settings: &Settings) -> Answer {
    let Asked {
        method,
        path,
        headers,
        has_body,
    } = asked;
    let mut answer = if !exists(path, settings) {
        Answer::text(StatusCode::NOT_FOUND, "there is no such page\n")
    } else if path == lifecycle::RELOAD && !has_body {
        lifecycle::refuse(method, headers, settings.enable_lifecycle).unwrap_or_else(|| Answer {
            reload: true,
            ..Answer::text(StatusCode::OK, "")
        })
    } else if method != Method::GET && method != Method::HEAD && path != lifecycle::RELOAD {
        Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n")
            .with(ALLOW, HeaderValue::from_static("GET, HEAD"))
    } else if has_body {
        Answer::text(StatusCode::BAD_REQUEST, "a request body is not accepted here\n")
    } else {
        route(path, headers, view, settings)
    };
    if has_body {
        // Nobody reads it, so nothing can follow it on this connection.
        answer = answer.with(CONNECTION, HeaderValue::from_static("close"));
    }
    answer.complete(method)
}

/// The answer to a request that asks for a reload, when that is over.
pub async fn reloaded(view: &impl View) -> Response<Frames> {
    lifecycle::answer(view.reload().await).complete(&Method::POST).response
}

const PATHS: [&str; 5] = ["/", "/-/healthy", "/-/ready", lifecycle::RELOAD, "/api/v1/status"];

fn exists(path: &str, settings: &Settings) -> bool {
    path == settings.telemetry_path || PATHS.contains(&path)
}

/// The page of a path that exists.
fn route(path: &str, headers: &HeaderMap, view: &impl View, settings: &Settings) -> Answer {
    if path == settings.telemetry_path {
        return exposition(Wanted::of(headers), view);
    }
    match path {
        "/-/healthy" if view.healthy() => Answer::text(StatusCode::OK, "healthy\n"),
        "/-/healthy" => Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not healthy: a loop of this process has ended; see its log\n",
        ),
        "/-/ready" if view.ready() => Answer::text(StatusCode::OK, "ready\n"),
        "/-/ready" => Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: a source has not ended its first round; / says what it waits for\n",
        ),
        "/api/v1/status" => Answer::new(StatusCode::OK, JSON, Frames::one(view.status_json())),
        _ => {
            let page = landing::page(&view.landing(), &settings.telemetry_path);
            let policy = HeaderValue::from_static(landing::CONTENT_SECURITY_POLICY);
            Answer::new(StatusCode::OK, HTML, Frames::one(page))
                .with(CONTENT_SECURITY_POLICY, policy)
                .with(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
                .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
        }
    }
}

fn exposition(wanted: Wanted, view: &impl View) -> Answer {
    let Scrape {
        generation,
        body,
        end,
        gzipped,
    } = view.metrics(wanted);
    let content_type = match wanted.format {
        Format::Text => EXPOSITION,
        Format::OpenMetrics => OPEN_METRICS,
    };
    let answer = Answer {
        scraped: Some(generation),
        ..Answer::new(StatusCode::OK, content_type, Frames::new(body, end))
    }
    .with(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzipped {
        answer.with(CONTENT_ENCODING, HeaderValue::from_static("gzip"))
    } else {
        answer
    }
}

impl Answer {
    fn new(status: StatusCode, content_type: HeaderValue, body: Frames) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Self {
            response,
            scraped: None,
            reload: false,
        }
        .with(CONTENT_TYPE, content_type)
    }

    fn text(status: StatusCode, text: &'static str) -> Self {
        Self::new(status, TEXT, Frames::one(Bytes::from_static(text.as_bytes())))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.headers_mut().insert(name, value);
        self
    }

    /// With the headers that every answer has, and without the body for those who asked for none.
    fn complete(mut self, method: &Method) -> Self {
        let length = self.response.body().len();
        let headers = self.response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if method == Method::HEAD {
            *self.response.body_mut() = Frames::default();
            self.scraped = None;
        }
        self
    }
}

/// A body of known length.
#[derive(Debug, Default)]
pub struct Frames {
    pieces: Pieces,
    /// How many of those that are shared are sent.
    sent: usize,
    end: Bytes,
    left: u64,
}

impl Frames {
    fn new(pieces: Pieces, end: Bytes) -> Self {
        let left = pieces.bytes() + end.len() as u64;
        Self {
            pieces,
            sent: 0,
            end,
            left,
        }
    }

    fn one(body: impl Into<Bytes>) -> Self {
        Self::new(Pieces::default(), body.into())
    }

    fn len(&self) -> u64 {
        self.left
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = match &mut self.pieces {
                Pieces::Ready(shared) => {
                    self.sent += 1;
                    shared.get(self.sent - 1).cloned()
                }
                Pieces::Made { pieces, .. } => pieces.next(),
            };
            match piece {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => return Some(piece),
                None => break,
            }
        }
        Some(std::mem::take(&mut self.end)).filter(|end| !end.is_empty())
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.next();
        self.left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests;
