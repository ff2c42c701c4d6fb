//! The real transport: the only file that names the HTTP client. TLS, time-outs, the token, bounded bodies.
//! Never follows a redirect, never retries, never shows a token or an upstream text in an error.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

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
