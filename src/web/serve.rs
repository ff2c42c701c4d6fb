//! The accept loop and its bounds. Every bound is here, so that no client, slow or hostile, can keep a scrape out for long.
//! Never routes (`respond` does), never ends because of one connection.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Answer, Asked, Frames, Settings, View, reloaded, respond};

/// What one client may take from the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; more are closed at once.
    pub(super) connections_max: usize,
    /// From the first byte of a request's head to its last, and from one request to the next: hyper has one timer for both.
    pub(super) header_read: Duration,
    /// How long a connection lives, busy or not: hyper does not limit how long a client takes to read its answer.
    pub(super) connection: Duration,
    /// What a connection has left to finish its answer when its time is over, or the process's.
    pub(super) grace: Duration,
}

/// A few Prometheus servers, probes and people need a dozen connections, and each costs some 20 KB. A silent one takes a
/// place, and connecting again is cheap, so the wait for a request is short. The grace leaves a stop within 5 s.
pub(super) const LIMITS: Limits = Limits {
    connections_max: 512,
    header_read: Duration::from_secs(10),
    connection: Duration::from_secs(120),
    grace: Duration::from_secs(4),
};

/// A head is a few hundred bytes; proxies and browsers add some. This is also hyper's buffer for what it sends.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// After an accept has failed, mostly for want of file descriptors: long enough not to spin, short enough for a scrape.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets running answers finish for a few seconds.
///
/// # Errors
/// The listener cannot tell its own address: it is not one that can be served.
pub async fn serve(
    listener: TcpListener,
    view: Arc<impl View>,
    settings: Settings,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_within(LIMITS, listener, view, settings, shutdown).await
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    view: Arc<impl View>,
    settings: Settings,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.local_addr()?;
    let settings = Arc::new(settings);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        // No place: the connection is dropped at once, which tells its client more than a queue would.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (view, settings, shutdown) = (Arc::clone(&view), Arc::clone(&settings), shutdown.clone());
        connections.spawn(async move {
            talk(limits, stream, view, settings, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    // Each connection bounds itself by the grace; this is for one that could not even get to that.
    let _ = timeout(limits.grace + Duration::from_millis(500), connections.wait()).await;
    Ok(())
}

/// One connection, from its first byte to its end.
async fn talk(
    limits: Limits,
    stream: TcpStream,
    view: Arc<impl View>,
    settings: Arc<Settings>,
    shutdown: CancellationToken,
) {
    // Answers are written whole: waiting for more to send with them would only delay small ones. Without it, they are late.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let (view, settings) = (Arc::clone(&view), Arc::clone(&settings));
        async move { Ok::<Response<Frames>, Infallible>(answer(&request, &*view, &settings).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // Broken connections are the clients' business: an error per port scan would bury the log.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = sleep(limits.connection) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.grace, connection).await;
}

async fn answer(request: &Request<Incoming>, view: &impl View, settings: &Settings) -> Response<Frames> {
    let has_body = !request.body().is_end_stream();
    let asked = Asked {
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
        has_body,
    };
    let Answer {
        response,
        scraped,
        reload,
    } = respond(asked, view, settings);
    if reload {
        return reloaded(view).await;
    }
    if let Some(generation) = scraped {
        view.scraped(generation);
    }
    response
}
