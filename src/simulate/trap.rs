//! A listener that nobody may ever reach: where a redirect to another origin leads in a test. It remembers what came,
//! above all whether a credential came along. Answers everything with an empty object, as a patient thief would.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::in_process::lock;

/// More of a request's head tells nothing new.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Only the first requests are kept; the first one is already a failure.
const HEADS_MAX: usize = 100;
/// Whoever connects and says nothing is recorded, but not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\nconnection: close\r\n\r\n{}\n";

/// A trap on a free port of the loopback address, until it is dropped.
#[derive(Debug)]
pub struct Trap {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

impl Trap {
    /// Sets a trap. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn set() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, heads) = (listener.local_addr()?, Arc::new(Mutex::new(vec![])));
        let stop = CancellationToken::new();
        let (caught, stopped) = (Arc::clone(&heads), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = watch(listener, caught) => {}
            }
        });
        Ok(Self {
            address,
            heads,
            _stop: stop.drop_guard(),
        })
    }

    /// Where the trap is, for [`super::Platform::set_redirect_to`]: another origin than every platform's.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/elsewhere", self.address)
    }

    /// The heads of the requests that have arrived, each complete. A connection that said nothing is an empty text.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        lock(&self.heads).clone()
    }

    /// Whether anybody has come at all.
    #[must_use]
    pub fn was_reached(&self) -> bool {
        !lock(&self.heads).is_empty()
    }

    /// Whether anybody has brought an `Authorization` header.
    #[must_use]
    pub fn saw_authorization(&self) -> bool {
        let is_credential = |line: &str| line.to_ascii_lowercase().starts_with("authorization:");
        lock(&self.heads).iter().any(|head| head.lines().any(is_credential))
    }
}

/// One connection after the other: nobody is expected.
async fn watch(listener: TcpListener, heads: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let head = tokio::time::timeout(PATIENCE, head(&mut stream))
            .await
            .unwrap_or_default();
        {
            let mut heads = lock(&heads);
            if heads.len() < HEADS_MAX {
                heads.push(head);
            }
        }
        // The visitor may have left; that it came is recorded.
        let _ = stream.write_all(ANSWER).await;
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    while bytes.len() < HEAD_BYTES_MAX && !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
