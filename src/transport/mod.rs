//! What may be asked of a platform and what comes back. The set of requests is closed: GET, and the two analytics queries.
//! Never decides when to ask (`poll`) or what an answer means (`sources`); only `http` below names the HTTP client.

pub mod http;

use std::future::Future;

use ::http::HeaderMap;
use bytes::Bytes;

/// The two POSTs that read. No other POST can be expressed, so no run can be started or cancelled by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Analytics {
    /// History of up to a batch of cases.
    HistoryBatch,
    /// The last pass of one case in each environment.
    LastPassPerEnv,
}

impl Analytics {
    /// The path below the base URL; also the route template.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::HistoryBatch => "/api/v2/analytics/test-case-history/batch",
            Self::LastPassPerEnv => "/api/v2/analytics/test-case-last-pass-per-env",
        }
    }
}

/// One request. Built by a source, sent by a transport, never changed in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    endpoint: &'static str,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<String>,
    may_be_forbidden: bool,
}

impl Request {
    /// A GET of `path` below the source's base URL. `endpoint` is the route template, the only form that becomes a label.
    #[must_use]
    pub fn get(endpoint: &'static str, path: String, query: Vec<(&'static str, String)>) -> Self {
        Self {
            endpoint,
            path,
            query,
            body: None,
            may_be_forbidden: false,
        }
    }

    /// For what a credential that is good for all the rest may not be good for: a 403 is then an answer to this request, and
    /// not the end of the credential.
    #[must_use]
    pub fn that_may_be_forbidden(self) -> Self {
        Self {
            may_be_forbidden: true,
            ..self
        }
    }

    /// One of the two analytics queries, with its JSON body.
    #[must_use]
    pub fn analytics(query: Analytics, body: String) -> Self {
        Self {
            endpoint: query.path(),
            path: query.path().to_owned(),
            query: Vec::new(),
            body: Some(body),
            may_be_forbidden: false,
        }
    }

    /// The route template.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// The path below the base URL.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query parameters, not yet encoded.
    #[must_use]
    pub fn query(&self) -> &[(&'static str, String)] {
        &self.query
    }

    /// The JSON body: `Some` makes it a POST.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Whether a 403 says nothing of the credential.
    #[must_use]
    pub fn may_be_forbidden(&self) -> bool {
        self.may_be_forbidden
    }

    /// `GET` or `POST`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }
}

/// A whole answer, whatever its status. The body is decompressed and within the configured bound.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no whole answer. Messages hold neither a token nor upstream's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing came in time.
    #[error("no complete answer within {seconds} s")]
    Timeout {
        /// The configured bound.
        seconds: u64,
    },
    /// Name resolution, connection, TLS, or a connection that broke.
    #[error("{0}")]
    Connection(String),
    /// The answer is larger than is read.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The answer's framing or compression is broken.
    #[error("the answer's encoding is broken: {0}")]
    Encoding(String),
    /// There is no usable token.
    #[error("{0}")]
    Credential(String),
}

/// Sends one request and waits for its whole answer. Never retries, never follows a redirect, never waits for a budget.
pub trait Transport: Send + Sync + 'static {
    /// Sends it.
    fn send(&self, request: &Request) -> impl Future<Output = Result<Reply, TransportError>> + Send;

    /// A number that changes when the credential does, so that a rotated token is tried at once.
    fn credential_version(&self) -> impl Future<Output = u64> + Send;
}
