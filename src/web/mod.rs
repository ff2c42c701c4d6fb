//! How it is served: a bounded HTTP/1.1 server over views that it is handed. Routes are one pure function, [`respond`].
//! Never knows what a metric or a source is, never asks a platform, never waits for anything but its own sockets.

mod landing;
mod serve;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};

pub use landing::{Health, Landing, LandingRow};
pub use serve::serve;

/// What the server shows. Every call returns at once: a scrape waits for nothing.
pub trait View: Send + Sync + 'static {
    /// The current exposition.
    fn metrics(&self) -> Scrape;
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
}

/// One exposition, in pieces that need not be copied together.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Which snapshot it shows: what [`View::scraped`] is told, since a newer one may be there by then.
    pub generation: u64,
    /// The text.
    pub frames: Vec<Bytes>,
}

/// How it is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path of the exposition. It wins over every other route.
    pub telemetry_path: String,
}

/// What is read of a request. Queries and bodies are not.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, without the query.
    pub path: &'a str,
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
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer to a request.
#[must_use]
pub fn respond(asked: Asked<'_>, view: &impl View, settings: &Settings) -> Answer {
    let Asked { method, path, has_body } = asked;
    let mut answer = if !exists(path, settings) {
        Answer::text(StatusCode::NOT_FOUND, "there is no such page\n")
    } else if method != Method::GET && method != Method::HEAD {
        Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n")
            .with(ALLOW, HeaderValue::from_static("GET, HEAD"))
    } else if has_body {
        Answer::text(StatusCode::BAD_REQUEST, "a request body is not accepted here\n")
    } else {
        route(path, view, settings)
    };
    if has_body {
        // Nobody reads it, so nothing can follow it on this connection.
        answer = answer.with(CONNECTION, HeaderValue::from_static("close"));
    }
    let length = answer.response.body().len();
    let headers = answer.response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if method == Method::HEAD {
        *answer.response.body_mut() = Frames::default();
        answer.scraped = None;
    }
    answer
}

const PATHS: [&str; 4] = ["/", "/-/healthy", "/-/ready", "/api/v1/status"];

fn exists(path: &str, settings: &Settings) -> bool {
    path == settings.telemetry_path || PATHS.contains(&path)
}

/// The page of a path that exists.
fn route(path: &str, view: &impl View, settings: &Settings) -> Answer {
    if path == settings.telemetry_path {
        let Scrape { generation, frames } = view.metrics();
        return Answer {
            scraped: Some(generation),
            ..Answer::new(StatusCode::OK, EXPOSITION, frames)
        };
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
        "/api/v1/status" => Answer::new(StatusCode::OK, JSON, vec![view.status_json().into()]),
        _ => {
            let page = landing::page(&view.landing(), &settings.telemetry_path);
            Answer::new(StatusCode::OK, HTML, vec![page.into()]).with(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(landing::CONTENT_SECURITY_POLICY),
            )
        }
    }
}

impl Answer {
    fn new(status: StatusCode, content_type: HeaderValue, frames: Vec<Bytes>) -> Self {
        let mut response = Response::new(Frames::new(frames));
        *response.status_mut() = status;
        Self {
            response,
            scraped: None,
        }
        .with(CONTENT_TYPE, content_type)
    }

    fn text(status: StatusCode, text: &'static str) -> Self {
        Self::new(status, TEXT, vec![Bytes::from_static(text.as_bytes())])
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.headers_mut().insert(name, value);
        self
    }
}

/// A body of ready pieces, of known length.
#[derive(Debug, Default)]
pub struct Frames {
    frames: VecDeque<Bytes>,
}

impl Frames {
    fn new(frames: Vec<Bytes>) -> Self {
        Self {
            frames: frames.into_iter().filter(|frame| !frame.is_empty()).collect(),
        }
    }

    fn len(&self) -> u64 {
        self.frames.iter().map(|frame| frame.len() as u64).sum()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

#[cfg(test)]
mod tests;
