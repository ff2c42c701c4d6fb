//! The accept loop and its bounds. Every bound is here, so that no client, slow or hostile, can keep a scrape out for long.
//! Never routes (`respond` does), never ends because of one connection.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Loaded;
use super::auth::{Checks, Verdict};
use super::places::{Place, Places, Seat, network};
use super::watched::Watched;
use super::{Answer, Asked, Frames, Settings, View, reloaded, respond, tls};

/// What one client may take from the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; one more takes the place of the one that has been silent longest.
    pub(super) connections_max: usize,
    /// From a connection's first moment to the end of the first request's head, and from one request to the next.
    pub(super) header_read: Duration,
    /// How long a connection lives, busy or not: hyper does not limit how long a client takes to read its answer.
    pub(super) connection: Duration,
    /// What a connection has left to finish its answer when its time is over, or the process's.
    pub(super) grace: Duration,
}

/// A few Prometheus servers, probes and people need a dozen connections, and each costs some 20 KB. A process is often
/// allowed 1,024 files: half of them stay for everything else. The grace leaves a stop within 5 s.
pub(super) const LIMITS: Limits = Limits {
    connections_max: 512,
    header_read: Duration::from_secs(10),
    connection: Duration::from_secs(120),
    grace: Duration::from_secs(4),
};

/// A head is a few hundred bytes; proxies and browsers add some. This is also hyper's buffer for what it sends.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// The same for the heads of HTTP/2.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Requests at a time on one connection of HTTP/2. A browser or a Prometheus has one or two.
const STREAMS_MAX: u32 = 16;

/// Streams that a client has opened and reset, and that are not forgotten yet: more is an attack, and ends the connection.
const RESET_STREAMS_MAX: usize = 32;

/// What is buffered of the answer on one stream.
const STREAM_BYTES_MAX: usize = 64 * 1024;

/// After an accept has failed, mostly for want of file descriptors: long enough not to spin, short enough for a scrape.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refused certificates are told of no more often: whoever connects in a loop must not fill the log.
const REFUSALS_EVERY: Duration = Duration::from_secs(1);

/// The first byte of a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// RFC 7617 wants a realm; a browser shows it beside the fields.
const REALM: &str = "Basic realm=\"testrun-exporter\"";

/// For a client that speaks HTTP where TLS is expected.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    this port speaks HTTPS; the request was HTTP\n";

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
    let house = Arc::new(House {
        limits,
        view,
        settings,
        checks: Checks::default(),
        refusal_told: Mutex::default(),
        shutdown,
    });
    let places = Places::new(limits.connections_max);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = house.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = house.shutdown.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        let Some(place) = places.take(address).await else { break };
        let house = Arc::clone(&house);
        connections.spawn(async move {
            let seat = Arc::clone(&place.seat);
            tokio::select! {
                () = house.receive(stream, address, &place) => {}
                () = seat.wanted() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    // Each connection bounds itself by the grace; this is for one that could not even get to that.
    let _ = timeout(limits.grace + Duration::from_millis(500), connections.wait()).await;
    Ok(())
}

/// What all connections share.
struct House<V> {
    limits: Limits,
    view: Arc<V>,
    settings: Settings,
    checks: Checks,
    /// When a refused certificate was told of last.
    refusal_told: Mutex<Option<Instant>>,
    shutdown: CancellationToken,
}

impl<V: View> House<V> {
    /// One connection, from its first byte to its end.
    async fn receive(self: &Arc<Self>, stream: TcpStream, address: IpAddr, place: &Place) {
        // Answers are written whole: waiting for more to send with them would only delay small ones. Without it, they are late.
        let _ = stream.set_nodelay(true);
        let seat = Arc::clone(&place.seat);
        let Some(access) = &self.settings.access else {
            return self
                .talk(Watched::new(stream, Arc::clone(&seat)), false, seat, address)
                .await;
        };
        let handshake = async {
            let Some(config) = access.current().await.tls.clone() else {
                return Some(Welcomed::Plain(stream));
            };
            let mut first = [0];
            if stream.peek(&mut first).await.ok()? == 1 && first[0] != TLS_HANDSHAKE {
                refuse_plain(stream).await;
                return None;
            }
            let stream = Watched::new(stream, Arc::clone(&seat));
            // A handshake that fails is the client's business: a line per port scan would bury the log.
            match TlsAcceptor::from(config).accept(stream).await {
                Ok(stream) => Some(Welcomed::Tls(Box::new(stream))),
                Err(error) => {
                    self.tell_refusal(&error, address);
                    None
                }
            }
        };
        let welcomed = tokio::select! {
            welcomed = timeout(self.limits.header_read, handshake) => welcomed.ok().flatten(),
            () = self.shutdown.cancelled() => None,
        };
        match welcomed {
            Some(Welcomed::Plain(stream)) => {
                self.talk(Watched::new(stream, Arc::clone(&seat)), false, seat, address)
                    .await;
            }
            Some(Welcomed::Tls(stream)) => {
                let is_http2 = tls::is_http2(stream.get_ref().1);
                self.talk(*stream, is_http2, seat, address).await;
            }
            None => {}
        }
    }

    /// A client whose certificate is refused hears no more than an alert. Whoever looks for the reason finds it here.
    fn tell_refusal(&self, error: &io::Error, address: IpAddr) {
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let Some(error @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) = error
        else {
            return;
        };
        let mut told = self.refusal_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= REFUSALS_EVERY) {
            *told = Some(Instant::now());
            tracing::debug!(%address, %error, "a client's certificate is refused");
        }
    }

    async fn talk(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        is_http2: bool,
        seat: Arc<Seat>,
        address: IpAddr,
    ) {
        let service = service_fn(|request: Request<Incoming>| {
            let (house, seat) = (Arc::clone(self), Arc::clone(&seat));
            async move { Ok::<_, Infallible>(house.answer(&request, &seat, address).await) }
        });
        let stream = TokioIo::new(stream);
        if is_http2 {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEAD_BYTES_MAX)
                .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
                .max_local_error_reset_streams(RESET_STREAMS_MAX)
                .max_send_buf_size(STREAM_BYTES_MAX)
                .serve_connection(stream, service);
            self.until_the_end(connection).await;
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_read)
                // Nothing is read while an answer is on its way: the request still lies in the buffer, so reading would take
                // another one of 8 KB for each scrape. Who hangs up is noticed by the next write; but where clients wait for
                // their passwords to be checked, at once, so that those who are gone hold nobody up.
                .half_close(self.settings.access.is_none())
                .max_buf_size(BUFFER_BYTES_MAX)
                .serve_connection(stream, service);
            self.until_the_end(connection).await;
        }
    }

    async fn until_the_end(&self, connection: impl GracefulConnection) {
        let mut connection = pin!(connection);
        tokio::select! {
            // Broken connections are the clients' business: an error per port scan would bury the log.
            _ = connection.as_mut() => return,
            () = self.shutdown.cancelled() => {}
            () = sleep(self.limits.connection) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(self.limits.grace, connection).await;
    }

    async fn answer(&self, request: &Request<Incoming>, seat: &Seat, address: IpAddr) -> Response<Frames> {
        seat.touch();
        if !seat.was_waited_for() {
            // Who sends many requests at once lets the others have their turn in between.
            yield_now().await;
        }
        let Some(access) = &self.settings.access else {
            return self.page(request).await;
        };
        let loaded = access.current().await;
        let mut response = match self.refusal(&loaded, request, address).await {
            Some(answer) => answer.response,
            None => self.page(request).await,
        };
        for (name, value) in &loaded.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    /// In the toolkit's order: its rate limit first, then passwords.
    async fn refusal(&self, loaded: &Loaded, request: &Request<Incoming>, address: IpAddr) -> Option<Answer> {
        let refuse = |status, text, name: HeaderName, value| {
            let answer = Answer::text(status, text).with(name, HeaderValue::from_static(value));
            Some(answer.complete(request.method()))
        };
        if !loaded.admits_request() {
            let text = "too many requests: rate_limit of the web configuration\n";
            return refuse(StatusCode::TOO_MANY_REQUESTS, text, RETRY_AFTER, "1");
        }
        let checked = self.checks.verdict(&loaded.users, request.headers(), network(address));
        match checked.await {
            Verdict::Welcome => None,
            Verdict::Refused => {
                let text = "a user name and a password are needed\n";
                refuse(StatusCode::UNAUTHORIZED, text, WWW_AUTHENTICATE, REALM)
            }
            Verdict::Busy => {
                let text = "too many passwords wait to be checked\n";
                refuse(StatusCode::SERVICE_UNAVAILABLE, text, RETRY_AFTER, "1")
            }
        }
    }

    async fn page(&self, request: &Request<Incoming>) -> Response<Frames> {
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
        } = respond(asked, &*self.view, &self.settings);
        if reload {
            return reloaded(&*self.view).await;
        }
        if let Some(generation) = scraped {
            self.view.scraped(generation);
        }
        response
    }
}

/// A connection that may speak.
enum Welcomed {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<Watched>>),
}

/// Tells a person with the wrong scheme in the URL what is wrong. What cannot be sent at once is not sent.
async fn refuse_plain(mut stream: TcpStream) {
    let _ = stream.write_all(NOT_TLS).await;
    let _ = stream.shutdown().await;
}
