//! Clients that mean no good, at the server's real limits and on real sockets: whoever asks honestly is answered meanwhile.
//! The crowd comes from one address and the honest client from another, as it is outside of tests; where the policy is to
//! hold within one address too, the test says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, client_config};
use crate::harness::PATIENCE;
use crate::web::{Server, ask, connect_from};

/// The server's places. More than that at once, and somebody has to leave.
const PLACES: usize = 512;
/// The crowd's address and the honest client's.
const CROWD: [u8; 4] = [127, 0, 0, 66];
const HONEST: [u8; 4] = [127, 0, 0, 1];

/// The honest client's scrapes, each over a new connection. Every one is answered.
async fn honest_scrapes(door: &Server, from: [u8; 4], count: usize) {
    for number in 0..count {
        let answer = ask(connect_from(door.address, from).await, "/metrics", "");
        let (status, text) = timeout(PATIENCE, answer).await.expect("an answer");
        assert!(status == 200 && text.ends_with("up 1\n"), "scrape {number}: {status}");
    }
}

/// Hostile clients that come again as soon as they are thrown out.
struct Crowd {
    stop: CancellationToken,
    /// How many times one of them has done what it does.
    deeds: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    /// `deed` gets a connection and ends when it is over, for whatever reason.
    fn gather<D: Future<Output = ()> + Send>(
        count: usize,
        address: SocketAddr,
        from: [u8; 4],
        deed: impl Fn(TcpStream) -> D + Clone + Send + Sync + 'static,
    ) -> Self {
        let (stop, deeds) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let one = || {
            let (stop, deeds, deed) = (stop.clone(), Arc::clone(&deeds), deed.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let stream = connect_from(address, from).await;
                    deeds.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        () = deed(stream) => {}
                        () = stop.cancelled() => {}
                    }
                }
            })
        };
        let tasks = (0..count).map(|_| one()).collect();
        Self { stop, deeds, tasks }
    }

    async fn has_begun(&self, deeds: usize) {
        crate::harness::wait_for("the crowd is there", async || {
            (self.deeds.load(Ordering::Relaxed) >= deeds).then_some(())
        })
        .await;
    }

    async fn go_home(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Waits for the server to close.
async fn until_closed(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// As many as there are places, and some more, all of one kind.
async fn holds_against<D: Future<Output = ()> + Send>(
    door: &Server,
    count: usize,
    from: [u8; 4],
    deed: impl Fn(TcpStream) -> D + Clone + Send + Sync + 'static,
) {
    let crowd = Crowd::gather(count, door.address, from, deed);
    crowd.has_begun(count).await;
    honest_scrapes(door, HONEST, 30).await;
    crowd.go_home().await;
    honest_scrapes(door, HONEST, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections() {
    let door = Server::start(&[]).await;
    holds_against(&door, PLACES + 50, CROWD, until_closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_from_the_honest_clients_own_address() {
    let door = Server::start(&[]).await;
    holds_against(&door, PLACES + 50, HONEST, until_closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end() {
    let door = Server::start(&[]).await;
    let drip = |mut stream: TcpStream| async move {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await;
        while stream.write_all(b"X-Slow: a\r\n").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    holds_against(&door, PLACES + 50, CROWD, drip).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_read() {
    let door = Server::start_with(&[], Bytes::from("a 1\n".repeat(1 << 20))).await;
    let deaf = |mut stream: TcpStream| async move {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut byte = [0];
        while let Ok(1..) = stream.read(&mut byte).await {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let crowd = Crowd::gather(PLACES + 50, door.address, CROWD, deaf);
    crowd.has_begun(PLACES + 50).await;
    honest_scrapes(&door, HONEST, 3).await;
    crowd.go_home().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_heads_and_bodies() {
    let door = Server::start(&[]).await;
    let huge = |mut stream: TcpStream| async move {
        let chunk = [b'a'; 64 * 1024];
        let _ = stream
            .write_all(b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
            .await;
        while stream.write_all(&chunk).await.is_ok() {}
    };
    holds_against(&door, 50, CROWD, huge).await;
    let huge_head = |mut stream: TcpStream| async move {
        let chunk = [b'a'; 64 * 1024];
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Huge: ").await;
        while stream.write_all(&chunk).await.is_ok() {}
    };
    holds_against(&door, 50, CROWD, huge_head).await;
    let mut stream = connect_from(door.address, HONEST).await;
    let head = format!("GET /metrics HTTP/1.1\r\nX-Huge: {}\r\n\r\n", "a".repeat(32 * 1024));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_at_once_on_each_connection() {
    let door = Server::start(&[]).await;
    let pipeline = |stream: TcpStream| async move {
        let requests = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
        let (mut reader, mut writer) = stream.into_split();
        let reading = async move {
            let mut buffer = [0; 64 * 1024];
            while let Ok(1..) = reader.read(&mut buffer).await {}
        };
        let writing = async move { while writer.write_all(&requests).await.is_ok() {} };
        tokio::join!(reading, writing);
    };
    holds_against(&door, 50, CROWD, pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections() {
    const ALL: usize = 10_000;
    /// What this process may have open without asking for more than is usual.
    const OPEN: usize = 350;
    let door = Server::start(&[]).await;
    let crowd = {
        let address = door.address;
        tokio::spawn(async move {
            let mut open = std::collections::VecDeque::new();
            for _ in 0..ALL {
                open.push_back(connect_from(address, CROWD).await);
                if open.len() > OPEN {
                    open.pop_front();
                }
            }
        })
    };
    honest_scrapes(&door, HONEST, 100).await;
    crowd.await.unwrap();
    honest_scrapes(&door, HONEST, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_connection_in_use_outlives_a_crowd_of_others() {
    let door = Server::start(&[]).await;
    let mut kept = connect_from(door.address, HONEST).await;
    let crowd = Crowd::gather(PLACES + 50, door.address, CROWD, until_closed);
    crowd.has_begun(PLACES + 50).await;
    for _ in 0..20 {
        kept.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"up 1\n") {
            assert!(kept.read_buf(&mut answer).await.unwrap() > 0, "closed in the middle");
        }
    }
    crowd.go_home().await;
}

/// A server with a certificate, and a client that believes it.
async fn with_tls() -> (Server, Arc<ClientConfig>) {
    let authority = Authority::new();
    let server = authority.server();
    let files = [
        (
            "web.yml",
            "tls_server_config: { cert_file: server.crt, key_file: server.key }\n",
        ),
        ("server.crt", &*server.certificate),
        ("server.key", &*server.key),
    ];
    let door = Server::start(&files).await;
    (door, client_config(&authority, None, rustls::ALL_VERSIONS, &["h2"]))
}

async fn private_scrapes(door: &Server, config: &Arc<ClientConfig>, count: usize) {
    let mut config = (**config).clone();
    config.alpn_protocols.clear();
    let config = Arc::new(config);
    for number in 0..count {
        let stream = connect_from(door.address, HONEST).await;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let handshake = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
        let stream = timeout(PATIENCE, handshake).await.expect("a handshake").unwrap();
        assert_eq!(ask(stream, "/metrics", "").await.0, 200, "scrape {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_broken_slow_or_never_begun() {
    let (door, client) = with_tls().await;
    // A client hello that promises more than comes.
    let half = |mut stream: TcpStream| async move {
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
        until_closed(stream).await;
    };
    let garbage = |mut stream: TcpStream| async move {
        let _ = stream.write_all(&b"\x16\x03\x01\xff\xff".repeat(1000)).await;
        until_closed(stream).await;
    };
    let plain = |mut stream: TcpStream| async move {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await;
        until_closed(stream).await;
    };
    let address = door.address;
    let crowds = [
        Crowd::gather(PLACES / 2, address, CROWD, half),
        Crowd::gather(PLACES / 2, address, CROWD, until_closed),
        Crowd::gather(20, address, CROWD, garbage),
        Crowd::gather(20, address, CROWD, plain),
    ];
    for crowd in &crowds {
        crowd.has_begun(20).await;
    }
    private_scrapes(&door, &client, 30).await;
    for crowd in crowds {
        crowd.go_home().await;
    }
}

/// The frames of HTTP/2 that these attacks need.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET https://a/metrics`, by the static table of HPACK.
const GET_METRICS: &[u8] = b"\x82\x87\x41\x01a\x44\x08/metrics";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_resets_endless_heads_pings_and_streams_that_nobody_reads() {
    let (door, client) = with_tls().await;
    let name = || ServerName::try_from("127.0.0.1").unwrap();
    let begin = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_METRICS),
    ]
    .concat();
    // After one request that is as it should be, each gives the bytes of its next stroke; the number counts them.
    type Stroke = fn(u32) -> Vec<u8>;
    let strokes: [Stroke; 4] = [
        |number| {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 3, GET_METRICS);
            [open, frame(RST_STREAM, 0, 2 * number + 3, &[0, 0, 0, 8])].concat()
        },
        |number| match number {
            0 => frame(HEADERS, END_STREAM, 3, GET_METRICS),
            _ => frame(CONTINUATION, 0, 3, &b"\x00\x01a\x7fa".repeat(100)[..128]),
        },
        |_| frame(PING, 0, 0, &[0; 8]),
        |number| frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 3, GET_METRICS),
    ];
    let mut crowds = Vec::new();
    for stroke in strokes {
        let (client, begin) = (Arc::clone(&client), begin.clone());
        let deed = move |stream: TcpStream| {
            let (client, begin) = (Arc::clone(&client), begin.clone());
            async move {
                let Ok(mut stream) = TlsConnector::from(client).connect(name(), stream).await else {
                    return;
                };
                let _ = stream.write_all(&begin).await;
                // The server's settings, and the answer.
                for _ in 0..3 {
                    let _ = timeout(Duration::from_secs(2), stream.read(&mut [0; 4096])).await;
                }
                for number in 0..100_000 {
                    let written = stream.write_all(&stroke(number)).await;
                    if written.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            }
        };
        crowds.push(Crowd::gather(10, door.address, CROWD, deed));
    }
    for crowd in &crowds {
        crowd.has_begun(10).await;
    }
    private_scrapes(&door, &client, 30).await;
    // One answer for each of the forty, or nearly: those who were shown out early may have gone without.
    crate::harness::wait_for("the crowd speaks HTTP/2 well enough to be answered", async || {
        (door.stage.scrapes.load(Ordering::SeqCst) >= 30 + 20).then_some(())
    })
    .await;
    for crowd in crowds {
        crowd.go_home().await;
    }
}
