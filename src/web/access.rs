//! Who may connect, and how: the web configuration file and the files that it names, read again when they change.
//! Never routes, and never takes a protection away while it runs: that needs a restart.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota};
use http::{HeaderName, HeaderValue};
use ring::digest::{Context, SHA256};
use rustls::ServerConfig;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::auth::Users;
use super::config::{self, Pem, Problem, RateLimit, Tls, WebConfig};
use super::tls::{self, Material, Wrong};

/// A certificate chain or a list of authorities is some kilobytes; a larger file is a mistaken path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The files are looked at again by the first connection or request after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a client waits for that: a disk that hangs must not hold it up.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// What is told each time the files have been read because they had changed: nothing, or what is wrong.
pub type Told = Box<dyn Fn(Option<String>) + Send + Sync>;

/// The web configuration, kept current.
pub struct Access {
    file: Arc<WatchedFile>,
}

struct WatchedFile {
    path: PathBuf,
    current: ArcSwap<Loaded>,
    looked: Arc<Mutex<Looked>>,
    told: Told,
}

struct Looked {
    at: Instant,
    /// Of the files as they were last read, good or bad.
    digest: [u8; 32],
}

/// What the files said when they were last good.
pub(super) struct Loaded {
    /// None: plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Put on every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) users: Arc<Users>,
    limit: Option<(RateLimit, Arc<DefaultDirectRateLimiter>)>,
    certificates: Demands,
}

/// What is demanded of clients' certificates.
#[derive(Debug, Clone, Copy, Default)]
struct Demands {
    required: bool,
    verified: bool,
    named: bool,
}

/// What a look at the files has found.
#[derive(Debug)]
pub struct Checked {
    /// Everything that is wrong with them.
    pub problems: Vec<Problem>,
    /// The files: the first one, and those that it names.
    pub files: Vec<PathBuf>,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Access({})", self.file.path.display())
    }
}

impl Access {
    /// Reads the file and what it names.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn open(path: &Path, told: Told) -> Result<Self, Vec<Problem>> {
        let read = Files::read(path);
        let (loaded, warnings) = read.load(None)?;
        warn_of(path, &warnings);
        told(None);
        Ok(Self {
            file: Arc::new(WatchedFile {
                path: path.to_owned(),
                current: ArcSwap::from_pointee(loaded),
                looked: Arc::new(Mutex::new(Looked {
                    at: Instant::now(),
                    digest: read.digest,
                })),
                told,
            }),
        })
    }

    /// Reads the file and what it names, to say what is wrong with them.
    #[must_use]
    pub fn check(path: &Path) -> Checked {
        let read = Files::read(path);
        Checked {
            problems: read.load(None).err().unwrap_or_default(),
            files: read.paths,
        }
    }

    /// What the file says and what does nothing here, or not what it seems.
    #[must_use]
    pub fn warnings(path: &Path) -> Vec<String> {
        Files::read(path)
            .config
            .map_or_else(|_| Vec::new(), |config| config.warnings)
    }

    /// Everything that is wrong with the file's text, whatever it names.
    #[must_use]
    pub(crate) fn problems_of_text(text: &str) -> Vec<Problem> {
        config::read(text).err().unwrap_or_default()
    }

    /// What holds now. The files are looked at first, if that was long ago and nobody else is at it.
    pub(super) async fn current(&self) -> Arc<Loaded> {
        if let Ok(mut looked) = Arc::clone(&self.file.looked).try_lock_owned()
            && looked.at.elapsed() >= LOOK_AGAIN
        {
            looked.at = Instant::now();
            let file = Arc::clone(&self.file);
            // The lock goes along: a disk that hangs holds one thread, not one more each second.
            let look = spawn_blocking(move || file.look_again(&mut looked.digest));
            let _ = timeout(LOOK_WITHIN, look).await;
        }
        self.file.current.load_full()
    }
}

impl WatchedFile {
    fn look_again(&self, digest: &mut [u8; 32]) {
        let read = Files::read(&self.path);
        if read.digest == *digest {
            return;
        }
        *digest = read.digest;
        let current = self.current.load_full();
        let path = self.path.display();
        match read.load(Some(&current)) {
            Ok((loaded, warnings)) => {
                tracing::info!(file = %path, "the web configuration has changed and is in use");
                warn_of(&self.path, &warnings);
                self.current.store(Arc::new(loaded));
                (self.told)(None);
            }
            Err(problems) => {
                for problem in &problems {
                    let path = format!("{path}{}", problem.place());
                    tracing::error!(file = path, %problem, "the changed web configuration is not used; the one before stays");
                }
                let shown: Vec<_> = problems.iter().map(|problem| problem.shown_in(&self.path)).collect();
                (self.told)(Some(shown.join("\n")));
            }
        }
    }
}

impl Loaded {
    /// Whether the file's rate limit lets one more request through.
    pub(super) fn admits_request(&self) -> bool {
        self.limit.as_ref().is_none_or(|(_, limiter)| limiter.check().is_ok())
    }

    fn new(config: &WebConfig, tls: Option<ServerConfig>, former: Option<&Self>) -> Self {
        let limit = config.rate_limit.map(|limit| {
            let kept = former
                .and_then(|former| former.limit.clone())
                .filter(|(known, _)| *known == limit);
            kept.unwrap_or_else(|| (limit, Arc::new(limiter(limit))))
        });
        Self {
            tls: tls.map(Arc::new),
            headers: config.headers.clone(),
            users: Arc::new(Users::new(config.users.clone(), former.map(|former| &*former.users))),
            limit,
            certificates: config.tls.as_ref().map(Demands::of).unwrap_or_default(),
        }
    }

    /// A file that is caught half written must not open the door: it is a valid one with less in it.
    fn protection_lost(&self, later: &Self) -> Option<&'static str> {
        let (before, after) = (self.certificates, later.certificates);
        if self.tls.is_some() && later.tls.is_none() {
            Some("tls_server_config")
        } else if !self.users.is_empty() && later.users.is_empty() {
            Some("basic_auth_users")
        } else if before.required && !after.required || before.verified && !after.verified {
            Some("tls_server_config.client_auth_type")
        } else if before.named && !after.named {
            Some("tls_server_config.client_allowed_sans")
        } else {
            None
        }
    }
}

impl Demands {
    fn of(tls: &Tls) -> Self {
        Self {
            required: tls.client_auth.is_required(),
            verified: tls.client_auth.is_verified(),
            named: tls.client_allowed_sans.is_some(),
        }
    }
}

fn limiter(limit: RateLimit) -> DefaultDirectRateLimiter {
    // An interval of 0 does not get here; without it there would be no limiter.
    let quota = Quota::with_period(limit.interval).unwrap_or_else(|| Quota::per_second(limit.burst));
    DefaultDirectRateLimiter::direct(quota.allow_burst(limit.burst))
}

fn warn_of(path: &Path, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(file = %path.display(), "web configuration: {warning}");
    }
}

/// The file and what it names, as they were at one moment.
struct Files {
    config: Result<WebConfig, Vec<Problem>>,
    certificate: Part,
    key: Part,
    client_ca: Option<Part>,
    paths: Vec<PathBuf>,
    digest: [u8; 32],
}

/// One PEM text: its key, and what was read.
type Part = (&'static str, Result<Vec<u8>, String>);

impl Files {
    fn read(path: &Path) -> Self {
        let mut digest = Context::new(&SHA256);
        let text = read_file(path).and_then(|bytes| {
            digest.update(&bytes);
            String::from_utf8(bytes).map_err(|_| "the file is not UTF-8; expected a YAML file".to_owned())
        });
        let config = match text {
            Ok(text) => config::read(&text),
            Err(message) => {
                digest.update(message.as_bytes());
                Err(vec![Problem::new("", message)])
            }
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut paths = vec![path.to_owned()];
        let mut part = |pem: &Pem| match pem {
            Pem::Inline { key, text } => (*key, Ok(text.expose_secret().as_bytes().to_vec())),
            Pem::File { key, path } => {
                let path = directory.join(path);
                let read = read_file(&path).map_err(|why| format!("{}: {why}", path.display()));
                paths.push(path);
                let seen = read.as_ref().map_or_else(|message| message.as_bytes(), Vec::as_slice);
                digest.update(&seen.len().to_le_bytes());
                digest.update(seen);
                (*key, read)
            }
        };
        let tls = config.as_ref().ok().and_then(|config| config.tls.as_ref());
        let nothing = || ("", Ok(Vec::new()));
        let certificate = tls.map_or_else(nothing, |tls| part(&tls.certificate));
        let key = tls.map_or_else(nothing, |tls| part(&tls.key));
        let client_ca = tls.and_then(|tls| tls.client_ca.as_ref()).map(&mut part);
        let mut sum = [0; 32];
        sum.copy_from_slice(digest.finish().as_ref());
        Self {
            config,
            certificate,
            key,
            client_ca,
            paths,
            digest: sum,
        }
    }

    fn load(&self, former: Option<&Loaded>) -> Result<(Loaded, Vec<String>), Vec<Problem>> {
        let config = self.config.as_ref().map_err(Clone::clone)?;
        let tls = match &config.tls {
            Some(tls) => Some(self.server_config(tls, config.http2)?),
            None => None,
        };
        let loaded = Loaded::new(config, tls, former);
        if let Some(key) = former.and_then(|former| former.protection_lost(&loaded)) {
            let message = "it protected more before, and that is not taken away while this runs; expected a restart";
            return Err(vec![Problem::new(key, message)]);
        }
        Ok((loaded, config.warnings.clone()))
    }

    fn server_config(&self, tls: &Tls, http2: bool) -> Result<ServerConfig, Vec<Problem>> {
        let problem = |key: &str, message: &str| {
            let key = if key.is_empty() {
                "tls_server_config".to_owned()
            } else {
                format!("tls_server_config.{key}")
            };
            Problem::new(key, message)
        };
        let parts = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        let unread: Vec<_> = parts
            .into_iter()
            .flatten()
            .filter_map(|(key, read)| Some(problem(key, read.as_ref().err()?)))
            .collect();
        if !unread.is_empty() {
            return Err(unread);
        }
        let bytes = |part: &Part| part.1.clone().unwrap_or_default();
        let material = Material {
            certificate: bytes(&self.certificate),
            key: bytes(&self.key),
            client_ca: self.client_ca.as_ref().map(bytes),
        };
        tls::server_config(tls, &material, http2).map_err(|wrong| {
            let client_ca = self.client_ca.as_ref().map_or("", |part| part.0);
            vec![match wrong {
                Wrong::Certificate(message) => problem(self.certificate.0, message),
                Wrong::Key(message) => problem(self.key.0, message),
                Wrong::ClientCa(message) => problem(client_ca, message),
                Wrong::Whole(message) => problem("", &message),
            }]
        })
    }
}

/// The bytes of a file of sensible size.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| {
        let text = error.to_string().to_lowercase();
        let why = text.split(" (os error").next().unwrap_or_default();
        format!("the file cannot be read: {why}; expected a readable file")
    };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("it is no regular file; expected one".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "the file is too large; expected at most {FILE_BYTES_MAX} bytes"
        ));
    }
    Ok(bytes)
}
