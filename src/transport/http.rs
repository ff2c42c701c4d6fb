//! The real transport: the only file that names the HTTP client. TLS, time-outs, the token, bounded bodies.
//! Never follows a redirect, never retries, never shows a token or an upstream text in an error.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use url::Url;

use super::{Reply, Request, Transport, TransportError};

/// Where a source is and how it is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything is asked below this URL, and the token goes to its origin only. No user info, query or fragment.
    pub base_url: Url,
    /// The bearer token.
    pub credential: Credential,
    /// Sent as x-project-id, if set.
    pub project_id: Option<u64>,
    /// Sent as x-project-slug, if set.
    pub project_slug: Option<String>,
    /// One request, from its first byte to the answer's last.
    pub request_timeout: Duration,
    /// The largest body that is read, after decompression.
    pub body_bytes_max: u64,
    /// One more certificate authority (PEM), beside the system's and the built-in ones.
    pub ca_file: Option<PathBuf>,
}

/// A bearer token, or the file that holds it now.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Fixed for the life of the process.
    Fixed(SecretString),
    /// Read anew for every request, so that a rotated token needs no restart.
    File(PathBuf),
}

impl Credential {
    /// Whether it is the same token, or the same file.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(token), Self::Fixed(other)) => token.expose_secret() == other.expose_secret(),
            (Self::File(path), Self::File(other)) => path == other,
            (Self::Fixed(_), Self::File(_)) | (Self::File(_), Self::Fixed(_)) => false,
        }
    }
}

/// Beyond this, a name that does not resolve or a host that does not accept is not worth the rest of the time-out.
const CONNECT_SECONDS_MAX: Duration = Duration::from_secs(5);
/// Longer than the usual poll interval, so that a quiet source keeps its connection.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// One request at a time needs one connection.
const POOL_IDLE_CONNECTIONS_MAX: usize = 1;
/// What a `Content-Length` may reserve before a byte has come.
const RESERVE_BYTES_MAX: u64 = 1 << 20;
/// The body of a refusal is read no further: its status and headers are what counts.
const REFUSAL_BYTES_MAX: u64 = 16 << 10;
/// Nor for longer.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);
/// No bearer token is longer; a token file that is was mistaken for one.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// The version of a credential that cannot be read.
const NO_CREDENTIAL: u64 = 0;

/// Why a transport cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The base URL is not one to ask below.
    #[error("the base URL must be http or https, without user info, query and fragment")]
    BaseUrl,
    /// The extra certificate authority cannot be used.
    #[error("certificate authority file {path}: {why}", path = path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A project's slug cannot be a header's value.
    #[error("the project's slug cannot be sent in a header")]
    ProjectSlug,
    /// TLS or the client cannot be set up.
    #[error("HTTP client: {0}")]
    Client(String),
}

/// One source's connection to its platform.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client,
    settings: Settings,
}

impl HttpTransport {
    /// Builds the client; nothing is sent.
    ///
    /// # Errors
    /// The settings cannot be used: a certificate file, the base URL, the slug.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let base = &settings.base_url;
        let plain = base.username().is_empty() && base.password().is_none();
        if !matches!(base.scheme(), "http" | "https") || !plain || base.query().is_some() || base.fragment().is_some() {
            return Err(SetupError::BaseUrl);
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls(settings.ca_file.as_deref())?)
            .default_headers(fixed_headers(&settings)?)
            .user_agent(concat!("testrun-exporter/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .gzip(true)
            .no_proxy()
            .connect_timeout(settings.request_timeout.min(CONNECT_SECONDS_MAX))
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_CONNECTIONS_MAX)
            .build()
            .map_err(|error| SetupError::Client(describe(&error)))?;
        Ok(Self { client, settings })
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, TransportError> {
        let url = address(&self.settings.base_url, request)?;
        let authorization = bearer(&self.token().await?, &self.settings.credential)?;
        let builder = match request.body() {
            None => self.client.get(url),
            Some(body) => self
                .client
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_owned()),
        };
        let response = builder
            .header(AUTHORIZATION, authorization)
            .send()
            .await
            .map_err(|error| read_error(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = if status.is_success() {
            whole_body(response, self.settings.body_bytes_max).await?
        } else {
            // A refusal counts for its status and headers: a Retry-After must be obeyed however broken the page below it is.
            let rest = tokio::time::timeout(REFUSAL_TIME_MAX, whole_body(response, REFUSAL_BYTES_MAX)).await;
            rest.ok().and_then(Result::ok).unwrap_or_default()
        };
        Ok(Reply {
            status: status.as_u16(),
            headers,
            body,
        })
    }

    async fn token(&self) -> Result<Vec<u8>, TransportError> {
        let path = match &self.settings.credential {
            Credential::Fixed(token) => return Ok(token.expose_secret().as_bytes().to_vec()),
            Credential::File(path) => path,
        };
        let unreadable = |error: std::io::Error| {
            let why = match error.kind() {
                ErrorKind::NotFound => "no such file".to_owned(),
                other => other.to_string(),
            };
            TransportError::Credential(format!("token file {}: {why}", path.display()))
        };
        let mut token = Vec::new();
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        file.take(TOKEN_BYTES_MAX + 1)
            .read_to_end(&mut token)
            .await
            .map_err(unreadable)?;
        if token.ends_with(b"\n") {
            token.pop();
            if token.ends_with(b"\r") {
                token.pop();
            }
        }
        Ok(token)
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: &Request) -> Result<Reply, TransportError> {
        // One bound over everything: token file, name resolution, connection, headers, body.
        let seconds = self.settings.request_timeout.as_secs();
        let whole = tokio::time::timeout(self.settings.request_timeout, self.exchange(request)).await;
        whole.unwrap_or(Err(TransportError::Timeout { seconds }))
    }

    async fn credential_version(&self) -> u64 {
        let read = tokio::time::timeout(self.settings.request_timeout, self.token()).await;
        let Ok(Ok(token)) = read else { return NO_CREDENTIAL };
        let mut hasher = DefaultHasher::new();
        token.hash(&mut hasher);
        hasher.finish()
    }
}

/// Roots of trust: the built-in ones (a container may have none), the system's, and the configured file's.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    // A certificate of the system's that cannot be read is missed at the first handshake that needs it, and named there.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let refuse = |why: String| SetupError::CaFile {
            path: path.to_owned(),
            why,
        };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| refuse(format!("not readable as PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(refuse("it holds no certificate".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Client(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What every request carries beside the token.
fn fixed_headers(settings: &Settings) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(id) = settings.project_id {
        headers.insert("x-project-id", HeaderValue::from(id));
    }
    if let Some(slug) = &settings.project_slug {
        headers.insert(
            "x-project-slug",
            HeaderValue::from_str(slug).map_err(|_| SetupError::ProjectSlug)?,
        );
    }
    Ok(headers)
}

fn bearer(token: &[u8], credential: &Credential) -> Result<HeaderValue, TransportError> {
    let refuse = |what: &str| {
        let place = match credential {
            Credential::Fixed(_) => "the token".to_owned(),
            Credential::File(path) => format!("token file {}", path.display()),
        };
        TransportError::Credential(format!("{place}: {what}"))
    };
    if token.is_empty() {
        return Err(refuse("it is empty"));
    }
    // RFC 6750: visible ASCII. A space or a second line means that the file is not a token file.
    if token.len() as u64 > TOKEN_BYTES_MAX || !token.iter().all(u8::is_ascii_graphic) {
        return Err(refuse("it holds more than one token of visible ASCII characters"));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| refuse("not a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The base URL with the request's path below it. Each segment is encoded, so none can lead elsewhere; what could only be
/// an attempt to do so is refused.
fn address(base: &Url, request: &Request) -> Result<Url, TransportError> {
    let refused = || TransportError::Connection("the request's path is not one below the base URL".to_owned());
    let path = request.path().strip_prefix('/').ok_or_else(refused)?;
    let harmless = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control);
    if !path.split('/').all(harmless) {
        return Err(refused());
    }
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| refused())?
        .pop_if_empty()
        .extend(path.split('/'));
    if !request.query().is_empty() {
        url.query_pairs_mut().extend_pairs(request.query());
    }
    Ok(url)
}

/// The body, counted after decompression: a small answer can unpack into a large one.
async fn whole_body(mut response: Response, limit: u64) -> Result<Bytes, TransportError> {
    let told = response.content_length().unwrap_or(0);
    if told > limit {
        return Err(TransportError::TooLarge { limit });
    }
    let mut body = BytesMut::with_capacity(usize::try_from(told.min(RESERVE_BYTES_MAX)).unwrap_or(0));
    while let Some(chunk) = response.chunk().await.map_err(|error| read_error(&error))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(TransportError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A failure in our words. The client's own texts may hold the URL or what the server sent, so none is passed on.
fn read_error(error: &reqwest::Error) -> TransportError {
    let what = describe(error);
    let causes = || causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    let broken = causes().any(|cause| cause.is_parse());
    // A connection that ended too early breaks the decompression as well; the connection is the cause.
    let cut = causes().any(|cause| cause.is_incomplete_message() || cause.is_closed() || cause.is_body_write_aborted());
    if broken || (error.is_decode() && !cut && causes().next().is_none()) {
        TransportError::Encoding(what)
    } else {
        TransportError::Connection(what)
    }
}

fn describe(error: &reqwest::Error) -> String {
    let cause = causes(error).find_map(|cause| {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(describe_tls(tls));
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            return describe_http(http);
        }
        let io = cause.downcast_ref::<std::io::Error>()?;
        match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Some(describe_tls(tls)),
            None => describe_io(io.kind()),
        }
    });
    match cause {
        Some(cause) => cause.to_owned(),
        None if error.is_dns() => "the host's name could not be resolved".to_owned(),
        None if error.is_timeout() => "connecting took too long".to_owned(),
        None if error.is_connect() => "could not connect".to_owned(),
        None if error.is_decode() => "the body could not be decompressed".to_owned(),
        None if error.is_builder() => "the request or the client could not be built".to_owned(),
        None => "the connection broke".to_owned(),
    }
}

fn describe_tls(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            "tls: the certificate's issuer is unknown (see ca_file)"
        }
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "tls: the certificate has expired"
        }
        Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "tls: the certificate is for another name"
        }
        Error::InvalidCertificate(_) => "tls: the certificate is not valid",
        Error::AlertReceived(_) => "tls: the server refused the handshake",
        _ => "tls: the handshake failed",
    }
}

fn describe_http(error: &hyper::Error) -> Option<&'static str> {
    if error.is_parse() {
        Some("the answer is not HTTP")
    } else if error.is_incomplete_message() {
        Some("the connection was closed before the whole answer had come")
    } else {
        None
    }
}

fn describe_io(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::ConnectionRefused => Some("the connection was refused"),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            Some("the connection was reset")
        }
        ErrorKind::UnexpectedEof => Some("the answer ended too early"),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some("the host cannot be reached"),
        ErrorKind::TimedOut => Some("connecting took too long"),
        _ => None,
    }
}

/// Every cause below an error, outermost first.
fn causes<'e>(error: &'e reqwest::Error) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let below: Option<&(dyn Error + 'static)> = error.source();
    std::iter::successors(below, |cause: &&'e (dyn Error + 'static)| (*cause).source())
}

#[cfg(test)]
mod tests;
