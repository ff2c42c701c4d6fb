//! A platform on a real socket, with real faults on the wire. HTTP/1.1 only, as the platforms' own servers.
//! Decides nothing about an answer; beside the API it serves the truth at `/-/truth`, for whoever compares from outside.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::Fault;
use super::in_process::{Flight, NowFn, lock};
use super::platform::{Answer, Asked, Platform};

/// No documented request has a larger body.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// A huge body: well above what any reader should take, small enough not to slow a test down.
const HUGE_CHUNKS: usize = 96;
const HUGE_CHUNK_BYTES: usize = 1024 * 1024;
/// What the compressed body inflates to.
const BOMB_BYTES: usize = 80 * 1024 * 1024;
/// One byte in so long: any request time-out passes before the body ends.
const DRIP_PAUSE: Duration = Duration::from_millis(200);

/// Serves the platform until the token is cancelled. Open connections are then dropped, as when a process ends.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    listener: TcpListener,
    platform: Arc<Mutex<Platform>>,
    now: NowFn,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted?.0,
        };
        let (platform, now, stop) = (Arc::clone(&platform), Arc::clone(&now), shutdown.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, platform, now) => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn connection(stream: TcpStream, platform: Arc<Mutex<Platform>>, now: NowFn) {
    let abort = Arc::new(AtomicBool::new(false));
    let socket = Socket {
        stream,
        abort: Arc::clone(&abort),
    };
    let service = service_fn(move |request| {
        let (platform, now, abort) = (Arc::clone(&platform), Arc::clone(&now), Arc::clone(&abort));
        async move { respond(request, &platform, &now, &abort).await }
    });
    // An error here is a reader that left, or a fault that was asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    platform: &Arc<Mutex<Platform>>,
    now: &NowFn,
    abort: &AtomicBool,
) -> Result<Response<Wire>, io::Error> {
    if request.uri().path() == "/-/truth" {
        return Ok(truth(&request, platform, now()));
    }
    let flight = Flight::begin(platform, now());
    let asked = asked(request).await?;
    let mut answer = lock(platform).answer(now(), &asked);
    if answer.fault.is_none() && accepts_gzip(&asked) && lock(platform).options().gzip {
        compress(&mut answer);
    }
    match answer.fault {
        Some(Fault::Reset) => {
            abort.store(true, Ordering::Relaxed);
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
        Some(Fault::Stall) => {
            // The reader gives up and asks again before this side notices: that is not a second request at once.
            drop(flight);
            std::future::pending().await
        }
        // A reader gives up on what is no whole answer when it likes; others are under way until their last byte.
        ref fault => {
            let is_whole = fault.as_ref().is_none_or(|fault| !fault.breaks_answer());
            let flight = is_whole.then_some(flight);
            Ok(response(answer, flight))
        }
    }
}

async fn asked(request: Request<Incoming>) -> Result<Asked, io::Error> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    let query = head.uri.query().unwrap_or_default();
    Ok(Asked {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: head.headers,
        body,
    })
}

/// `since` is when the reader read the run list for the first time, `branches` the names that are kept as labels.
fn truth(request: &Request<Incoming>, platform: &Mutex<Platform>, now: Timestamp) -> Response<Wire> {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let param = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let since = param("since").and_then(|text| text.parse().ok()).unwrap_or(now);
    let kept: Vec<&str> = param("branches").unwrap_or("main,master").split(',').collect();
    let mut platform = lock(platform);
    platform.advance(now);
    let truth = platform.truth(since, |branch| {
        branch
            .filter(|name| kept.contains(name))
            .unwrap_or(crate::model::OTHER)
            .to_owned()
    });
    let mut body = truth.to_json();
    body["settled"] = platform.settled(now).into();
    body["violations"] = platform.violations().into();
    let mut response = Response::new(Wire::whole(Bytes::from(body.to_string())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer as it goes over the wire, faults included.
fn response(answer: Answer, flight: Option<Flight>) -> Response<Wire> {
    let Answer {
        status,
        mut headers,
        body,
        fault,
    } = answer;
    let mut wire = Wire::whole(body);
    match fault {
        Some(Fault::Truncated) => {
            let size = wire.left.len();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
            wire.left.truncate(size / 2);
            wire.way = Way::Cut { flushed: false };
        }
        Some(Fault::SlowBody) => wire.way = Way::Drip(Box::pin(tokio::time::sleep(DRIP_PAUSE))),
        Some(Fault::HugeBody) => {
            wire.left = Bytes::from(vec![b' '; HUGE_CHUNK_BYTES]);
            wire.way = Way::Flood(HUGE_CHUNKS);
        }
        Some(Fault::GzipBomb) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            wire.left = bomb();
        }
        _ => {}
    }
    wire.flight = flight;
    let mut response = Response::new(wire);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

fn accepts_gzip(asked: &Asked) -> bool {
    let accepted = asked.headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    codings.any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

fn compress(answer: &mut Answer) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail; were it to, the body would go as it is.
    if encoder.write_all(&answer.body).is_ok()
        && let Ok(body) = encoder.finish()
    {
        answer.body = body.into();
        answer
            .headers
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
}

fn bomb() -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let spaces = vec![b' '; HUGE_CHUNK_BYTES];
    for _ in 0..BOMB_BYTES / HUGE_CHUNK_BYTES {
        // Writing to memory does not fail.
        let _ = encoder.write_all(&spaces);
    }
    Bytes::from(encoder.finish().unwrap_or_default())
}

/// How a body goes over the wire.
enum Way {
    Whole,
    /// Breaks off after what is left, once that is on its way.
    Cut {
        flushed: bool,
    },
    /// One byte after each pause.
    Drip(Pin<Box<Sleep>>),
    /// The same bytes so many times.
    Flood(usize),
}

/// A body on its way. The request is over when it is dropped.
struct Wire {
    left: Bytes,
    way: Way,
    flight: Option<Flight>,
}

impl Wire {
    fn whole(body: Bytes) -> Self {
        Self {
            left: body,
            way: Way::Whole,
            flight: None,
        }
    }
}

impl Body for Wire {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let wire = self.get_mut();
        let frame = |data: Bytes| Poll::Ready(Some(Ok(Frame::data(data))));
        match &mut wire.way {
            Way::Flood(times) if *times > 0 => {
                *times -= 1;
                frame(wire.left.clone())
            }
            Way::Flood(_) => Poll::Ready(None),
            Way::Drip(pause) if !wire.left.is_empty() => {
                std::task::ready!(pause.as_mut().poll(context));
                pause.as_mut().reset(tokio::time::Instant::now() + DRIP_PAUSE);
                frame(wire.left.split_to(1))
            }
            Way::Cut { flushed } if wire.left.is_empty() => {
                // The server writes what it has whenever the body pauses; an error at once would take the head with it.
                if !std::mem::replace(flushed, true) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::BrokenPipe))))
            }
            _ if wire.left.is_empty() => {
                // The reader may ask again as soon as it has the last byte.
                wire.flight = None;
                Poll::Ready(None)
            }
            _ => {
                let data = std::mem::take(&mut wire.left);
                wire.flight = None;
                frame(data)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.way, Way::Whole) && self.left.is_empty()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self.way {
            Way::Whole => hyper::body::SizeHint::with_exact(self.left.len() as u64),
            _ => hyper::body::SizeHint::default(),
        }
    }
}

/// A connection that can end in a reset instead of a farewell.
struct Socket {
    stream: TcpStream,
    abort: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.abort.load(Ordering::Relaxed) {
            // Where the system refuses, the connection just closes: a fault as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
