//! What an honest client notices of hostile ones. `cargo bench --bench hostile`; `-- 3` takes three rounds instead of five,
//! and a word takes the kinds that contain it: `-- 3 silent`.
//!
//! For each kind: the honest client alone, then beside 50 hostile ones (and where places are the target, beside more of them
//! than there are places), in turns, so that the ratio holds on whatever machine this is. The honest client scrapes ten times
//! a second over a new connection each time, the harder way. The hostile ones run in this same process and take their share
//! of the processor: a ratio above 1 holds their own work too.

#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs
)]

#[path = "suite/view.rs"]
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testrun_exporter::web::{self, access::Access};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use view::Scraped;

/// What is served: a small exposition as it is, of 1,000 series.
const BODY_BYTES: usize = 100 * 1024;
const PLACES: usize = 512;
const HONEST: [u8; 4] = [127, 0, 0, 1];
const CROWD: [u8; 4] = [127, 0, 0, 66];
const SCRAPES: usize = 100;
const BETWEEN: Duration = Duration::from_millis(20);

/// A server, and how the honest client gets in.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    client: Option<Arc<ClientConfig>>,
    headers: String,
    /// Scrapes that were not answered as they should.
    refused: Arc<AtomicU64>,
}

async fn open_door(files: &[(&str, String)], client: Option<Arc<ClientConfig>>, headers: &str) -> Door {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let path = directory.path().join("web.yml");
    let access = (!files.is_empty()).then(|| Arc::new(Access::open(&path, Box::new(|_| ())).unwrap()));
    // The files stay until the process ends: the server looks at them.
    let _ = directory.keep();
    let settings = web::Settings {
        enable_lifecycle: false,
        telemetry_path: "/metrics".to_owned(),
        access,
    };
    let body = Arc::from([Bytes::from("a 1\n".repeat(BODY_BYTES / 4))]);
    let view = Arc::new(Scraped(move |wanted: web::Wanted| web::Scrape {
        generation: 1,
        body: web::Pieces::Ready(Arc::clone(&body)),
        end: Bytes::from_static(b"up 1\n"),
        gzipped: wanted.gzip,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(web::serve(listener, view, settings, CancellationToken::new()));
    Door {
        address,
        client,
        headers: headers.to_owned(),
        refused: Arc::default(),
    }
}

async fn connect(address: SocketAddr, from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(address).await
}

async fn private(
    client: &Arc<ClientConfig>,
    stream: TcpStream,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(client)).connect(name, stream).await
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    headers: &str,
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut length = 0;
    loop {
        match stream.read(buffer).await? {
            0 => return Ok(length),
            count => length += count,
        }
    }
}

impl Door {
    async fn scrape(&self, buffer: &mut [u8]) -> Duration {
        let since = Instant::now();
        let answered = async {
            let stream = connect(self.address, HONEST).await?;
            match &self.client {
                Some(client) => ask(private(client, stream).await?, &self.headers, buffer).await,
                None => ask(stream, &self.headers, buffer).await,
            }
        };
        if !answered.await.is_ok_and(|length| length > BODY_BYTES) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        since.elapsed()
    }

    async fn scrapes(&self) -> Vec<Duration> {
        let mut buffer = vec![0; 64 * 1024];
        let mut times = Vec::new();
        for _ in 0..SCRAPES {
            times.push(self.scrape(&mut buffer).await);
            sleep(BETWEEN).await;
        }
        times
    }
}

async fn until_closed(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// What one hostile client does with a connection; it comes again when it is thrown out.
async fn misbehave(kind: &str, number: u8, door: &Door) {
    // Guesses come from everywhere.
    let from = if kind == "wrong passwords" {
        [127, 0, 1, number]
    } else {
        CROWD
    };
    let Ok(mut stream) = connect(door.address, from).await else {
        return sleep(Duration::from_millis(10)).await;
    };
    match kind {
        "silent" | "silent, more than places" => until_closed(stream).await,
        "slow heads" => {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await;
            while stream.write_all(b"X: a\r\n").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        }
        "slow reads" => {
            let _ = stream
                .write_all(&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100))
                .await;
            let mut some = [0; 512];
            while let Ok(1..) = stream.read(&mut some).await {
                sleep(Duration::from_millis(100)).await;
            }
        }
        "huge heads" => {
            let chunk = [b'a'; 16 * 1024];
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Huge: ").await;
            while stream.write_all(&chunk).await.is_ok() {}
            sleep(Duration::from_millis(10)).await;
        }
        "huge bodies" => {
            let chunk = [b'a'; 16 * 1024];
            let head = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
            let _ = stream.write_all(head).await;
            while stream.write_all(&chunk).await.is_ok() {}
            sleep(Duration::from_millis(10)).await;
        }
        "pipelining" => {
            // Sends a hundred requests, reads ten answers of them a second.
            let _ = stream
                .write_all(&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100))
                .await;
            let mut answer = vec![0; BODY_BYTES];
            while stream.read_exact(&mut answer).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        }
        "pipelining, as fast as it goes" => {
            let requests = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
            let mut buffer = vec![0; 64 * 1024];
            while stream.write_all(&requests).await.is_ok() {
                if !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                    return;
                }
            }
        }
        "connecting again and again" => drop(stream),
        "bad TLS" => {
            let _ = stream.write_all(b"\x16\x03\x01\xff\xff\x01\x02\x03").await;
            until_closed(stream).await;
            sleep(Duration::from_millis(10)).await;
        }
        "half a handshake" => {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
            until_closed(stream).await;
        }
        "whole handshakes" => {
            if let Some(client) = &door.client {
                drop(private(client, stream).await);
            }
            sleep(Duration::from_millis(100)).await;
        }
        "HTTP/2 resets" => rapid_resets(stream, door).await,
        "wrong passwords" => {
            let guess = format!("Authorization: Basic {}\r\n", STANDARD.encode("alice:guess"));
            let _ = ask(stream, &guess, &mut [0; 1024]).await;
        }
        other => panic!("{other}"),
    }
}

async fn rapid_resets(stream: TcpStream, door: &Door) {
    let Some(client) = &door.client else { return };
    let mut client = (**client).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let client = Arc::new(client);
    let Ok(mut stream) = private(&client, stream).await else {
        return;
    };
    let _ = stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await;
    for number in (1_u32..).step_by(2) {
        let id = number.to_be_bytes();
        let open = [
            b"\x00\x00\x0f\x01\x05".as_slice(),
            &id,
            b"\x82\x87\x41\x01a\x44\x08/metrics",
        ]
        .concat();
        let reset = [b"\x00\x00\x04\x03\x00".as_slice(), &id, b"\x00\x00\x00\x08"].concat();
        if stream.write_all(&[open, reset].concat()).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    sleep(Duration::from_millis(10)).await;
}

/// Runs the crowd until it is stopped. A runtime of its own: it does not share the server's threads, only the processor.
fn gather(kind: &'static str, count: usize, door: &Door) -> (Runtime, CancellationToken) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    for number in 0..count {
        let (door, stop) = (door.clone(), stop.clone());
        runtime.spawn(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = misbehave(kind, (number % 250) as u8, &door) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }
    (runtime, stop)
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort();
    let place = ((times.len() - 1) as f64 * part).round() as usize;
    times[place].as_secs_f64() * 1e3
}

const PLAIN: &[(&str, usize)] = &[
    ("silent", 50),
    ("silent, more than places", PLACES + 50),
    ("slow heads", 50),
    ("slow reads", 50),
    ("huge heads", 50),
    ("huge bodies", 50),
    ("pipelining", 50),
    ("pipelining, as fast as it goes", 50),
    ("connecting again and again", 50),
];
const PRIVATE: &[(&str, usize)] = &[
    ("bad TLS", 50),
    ("half a handshake", 50),
    ("whole handshakes", 50),
    ("HTTP/2 resets", 50),
];
const WITH_PASSWORDS: &[(&str, usize)] = &[("wrong passwords", 50)];

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(5);
    let wanted = words.iter().find(|word| word.parse::<usize>().is_err());
    let server = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let honest = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.der().to_vec())).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = "tls_server_config: { cert_file: server.crt, key_file: server.key }\n".to_owned();
    let users = format!(
        "basic_auth_users: {{ alice: '{}' }}\n",
        bcrypt::hash_with_salt("secret", 10, [1; 16]).unwrap()
    );
    let right = format!("Authorization: Basic {}\r\n", STANDARD.encode("alice:secret"));
    let plain = server.block_on(open_door(&[], None, ""));
    let files = [
        ("web.yml", tls),
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ];
    let private = server.block_on(open_door(&files, Some(Arc::new(client)), ""));
    let with_passwords = server.block_on(open_door(&[("web.yml", users)], None, &right));
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8}",
        "ms", "p50", "p99", "p50'", "p99'", "p99'/p99", "refused"
    );
    for (door, kinds) in [(&plain, PLAIN), (&private, PRIVATE), (&with_passwords, WITH_PASSWORDS)] {
        for (kind, count) in kinds {
            if wanted.is_some_and(|wanted| !kind.contains(wanted.as_str())) {
                continue;
            }
            let (mut alone, mut beside) = (Vec::new(), Vec::new());
            door.refused.store(0, Ordering::Relaxed);
            for _ in 0..rounds {
                alone.extend(honest.block_on(door.scrapes()));
                let (crowd, stop) = gather(kind, *count, door);
                honest.block_on(async { sleep(Duration::from_millis(500)).await });
                beside.extend(honest.block_on(door.scrapes()));
                stop.cancel();
                crowd.shutdown_timeout(Duration::from_secs(5));
            }
            let [p50, p99] = [0.5, 0.99].map(|part| quantile(&mut alone, part));
            let [beside50, beside99] = [0.5, 0.99].map(|part| quantile(&mut beside, part));
            let ratio = beside99 / p99;
            let refused = door.refused.load(Ordering::Relaxed);
            println!("{kind:32} {p50:9.2} {p99:9.2} {beside50:9.2} {beside99:9.2} {ratio:7.2} {refused:8}");
        }
    }
}
