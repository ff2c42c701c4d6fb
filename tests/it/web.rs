//! The web server with a web configuration, on real sockets: who gets in, over which protocol, and what happens when the
//! files change under it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use testrun_exporter::web::{self, access::Access};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Signed, certificate, client_config};
use crate::harness::{PATIENCE, wait_for};

/// The one page of these tests, and how often it was told.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) scrapes: AtomicU64,
    reloads: AtomicU64,
    body: Bytes,
}

impl web::View for Stage {
    fn metrics(&self, wanted: web::Wanted) -> web::Scrape {
        web::Scrape {
            generation: 1,
            body: web::Pieces::Ready(Arc::from([self.body.clone()])),
            end: Bytes::from_static(b"up 1\n"),
            gzipped: wanted.gzip,
        }
    }
    fn scraped(&self, _: u64) {
        self.scrapes.fetch_add(1, Ordering::SeqCst);
    }
    fn ready(&self) -> bool {
        true
    }
    fn healthy(&self) -> bool {
        true
    }
    fn status_json(&self) -> String {
        "{}".to_owned()
    }
    fn landing(&self) -> web::Landing {
        web::Landing::default()
    }
    async fn reload(&self) -> Result<String, String> {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Ok(String::new())
    }
}

/// A server with a web configuration in a directory of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stage: Arc<Stage>,
    directory: TempDir,
    /// What was told of each time that the files were read.
    told: Arc<Mutex<Vec<bool>>>,
    shutdown: CancellationToken,
}

impl Server {
    /// Files by name; `web.yml` is the configuration. Without one, there is none.
    pub(crate) async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, Bytes::new()).await
    }

    pub(crate) async fn start_with(files: &[(&str, &str)], body: Bytes) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let told: Arc<Mutex<Vec<bool>>> = Arc::default();
        let path = directory.path().join("web.yml");
        let access = path.exists().then(|| {
            let told = Arc::clone(&told);
            let access = Access::open(&path, Box::new(move |wrong| told.lock().unwrap().push(wrong.is_none())));
            Arc::new(access.unwrap_or_else(|problems| panic!("{problems:?}")))
        });
        let settings = web::Settings {
            telemetry_path: "/metrics".to_owned(),
            enable_lifecycle: true,
            access,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stage = Arc::new(Stage {
            body,
            ..Stage::default()
        });
        tokio::spawn(web::serve(listener, Arc::clone(&stage), settings, shutdown.clone()));
        Self {
            address,
            stage,
            directory,
            told,
            shutdown,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As careful tools write: the old content, or the new one.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path("draft"), content).unwrap();
        fs::rename(self.path("draft"), self.path(name)).unwrap();
    }

    fn told(&self) -> Vec<bool> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A connection from the given loopback address: to the server, each is another client.
pub(crate) async fn connect_from(address: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

async fn handshake(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!(
        "Authorization: Basic {}\r\n",
        STANDARD.encode(format!("{user}:{password}"))
    )
}

/// One GET; status and the whole answer. An answer that is cut off has status 0.
pub(crate) async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> (u16, String) {
    ask_with("GET", stream, path, headers).await
}

async fn ask_with(
    method: &str,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &str,
) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    let exchange = async {
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = timeout(PATIENCE, exchange).await.expect("the answer ends");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or(0), answer)
}

pub(crate) fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash_with_salt(password, cost, [3; 16]).unwrap().to_string()
}

const TLS: &str = "tls_server_config: { cert_file: server.crt, key_file: server.key }\n";

#[tokio::test]
async fn over_tls_with_a_password_everything_is_protected() {
    let authority = Authority::new();
    let server = authority.server();
    let web = format!("{TLS}basic_auth_users: {{ alice: '{}' }}\n", hash("secret", 4));
    let files = [
        ("web.yml", &*web),
        ("server.crt", &*server.certificate),
        ("server.key", &*server.key),
    ];
    let door = Server::start(&files).await;
    let client = client_config(&authority, None, rustls::ALL_VERSIONS, &[]);
    let status = async |path: &str, headers: &str| {
        let stream = handshake(door.address, &client).await.unwrap();
        ask(stream, path, headers).await
    };
    for path in ["/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/status", "/nothing"] {
        let (code, answer) = status(path, "").await;
        assert_eq!(code, 401, "{path}");
        assert!(
            answer.contains("www-authenticate: Basic realm=\"testrun-exporter\"\r\n"),
            "{answer}"
        );
    }
    let wrong = [
        basic("alice", "guess"),
        basic("bob", "secret"),
        basic("alice", ""),
        "Authorization: Basic !\r\n".to_owned(),
        "Authorization: Bearer secret\r\n".to_owned(),
    ];
    for headers in &wrong {
        assert_eq!(status("/metrics", headers).await.0, 401, "{headers}");
    }
    assert_eq!(door.stage.scrapes.load(Ordering::SeqCst), 0);
    for _ in 0..2 {
        let (code, answer) = status("/metrics", &basic("alice", "secret")).await;
        assert!(code == 200 && answer.ends_with("up 1\n"), "{answer}");
    }
    assert_eq!(status("/-/ready", &basic("alice", "secret")).await.0, 200);
    assert_eq!(
        status("/metrics", &basic("alice", "guess")).await.0,
        401,
        "what is cached is the right one"
    );

    // Who forgets the s of https is told so.
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (code, answer) = ask(stream, "/metrics", "").await;
    assert!(code == 400 && answer.contains("HTTPS"), "{answer}");
}

#[tokio::test]
async fn a_reload_needs_the_password_too() {
    let web = format!("basic_auth_users: {{ alice: '{}' }}\n", hash("secret", 4));
    let door = Server::start(&[("web.yml", &*web)]).await;
    let reload = async |headers: &str| {
        let stream = TcpStream::connect(door.address).await.unwrap();
        let (code, _) = ask_with("POST", stream, "/-/reload", headers).await;
        (code, door.stage.reloads.load(Ordering::SeqCst))
    };
    assert_eq!(reload("").await, (401, 0));
    assert_eq!(reload(&basic("alice", "wrong")).await, (401, 0));
    assert_eq!(reload(&basic("alice", "secret")).await, (200, 1));
}

#[tokio::test]
async fn http2_is_offered_over_tls_unless_it_is_turned_off() {
    let authority = Authority::new();
    let server = authority.server();
    for (setting, protocol) in [("true", "h2"), ("false", "http/1.1")] {
        let web =
            format!("{TLS}http_server_config: {{ http2: {setting}, headers: {{ X-Frame-Options: sameorigin }} }}\n");
        let files = [
            ("web.yml", &*web),
            ("server.crt", &*server.certificate),
            ("server.key", &*server.key),
        ];
        let door = Server::start(&files).await;
        let client = client_config(&authority, None, rustls::ALL_VERSIONS, &["h2", "http/1.1"]);
        let stream = handshake(door.address, &client).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        if protocol == "http/1.1" {
            let (code, answer) = ask(stream, "/metrics", "").await;
            assert!(
                code == 200 && answer.contains("x-frame-options: sameorigin\r\n"),
                "{answer}"
            );
            continue;
        }
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        let one = |method: &str, path: &str| {
            let uri = format!("https://127.0.0.1{path}");
            let request = http::Request::builder()
                .method(method)
                .uri(uri)
                .body(Empty::<Bytes>::new());
            sender.send_request(request.unwrap())
        };
        let mut one = one;
        let (first, second) = (one("GET", "/metrics"), one("HEAD", "/"));
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
        assert_eq!(first.headers()["x-frame-options"], "sameorigin", "instead of our own");
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "up 1\n");
        assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), "");
    }
}

/// Whether a client with this certificate gets an answer.
async fn is_let_in(door: &Server, authority: &Authority, shows: Option<&Signed>) -> bool {
    let mut answers = Vec::new();
    for version in rustls::ALL_VERSIONS {
        let client = client_config(authority, shows, &[version], &[]);
        // With TLS 1.3 a client believes that it is in until it reads.
        let answer = match handshake(door.address, &client).await {
            Ok(stream) => ask(stream, "/metrics", "").await.0,
            Err(_) => 0,
        };
        answers.push(answer == 200);
    }
    assert_eq!(answers[0], answers[1], "both versions of TLS let in the same clients");
    answers[0]
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_checked_as_the_file_says() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server();
    let ca = authority.pem();
    let shown = [
        None,
        Some(authority.client(&["client.example"])),
        Some(stranger.client(&["client.example"])),
        Some(authority.expired()),
    ];
    for (auth, with_ca, expected) in [
        ("NoClientCert", false, [true, true, true, true]),
        ("RequestClientCert", false, [true, true, true, true]),
        ("RequireAnyClientCert", false, [false, true, true, true]),
        ("VerifyClientCertIfGiven", true, [true, true, false, false]),
        ("RequireAndVerifyClientCert", true, [false, true, false, false]),
    ] {
        let ca_file = if with_ca { ", client_ca_file: ca.crt" } else { "" };
        let web = format!(
            "tls_server_config: {{ cert_file: server.crt, key_file: server.key, client_auth_type: {auth}{ca_file} }}\n"
        );
        let files = [
            ("web.yml", &*web),
            ("server.crt", &*server.certificate),
            ("server.key", &*server.key),
            ("ca.crt", &*ca),
        ];
        let door = Server::start(&files).await;
        for (shown, expected) in shown.iter().zip(expected) {
            let names = shown.as_ref().map(|signed| signed.certificate.len());
            assert_eq!(
                is_let_in(&door, &authority, shown.as_ref()).await,
                expected,
                "{auth} {names:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_certificate_needs_one_of_the_allowed_names() {
    let authority = Authority::new();
    let server = authority.server();
    let ca = authority.pem();
    let web = "tls_server_config: { cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt, client_auth_type: \
               RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example, 192.0.2.7, 'spiffe://example/prometheus', \
               ops@example.org, '2001:db8::7'] }\n";
    let files = [
        ("web.yml", web),
        ("server.crt", &*server.certificate),
        ("server.key", &*server.key),
        ("ca.crt", &*ca),
    ];
    let door = Server::start(&files).await;
    for (names, expected) in [
        (vec!["prometheus.example"], true),
        (vec!["other.example", "192.0.2.7"], true),
        (vec!["spiffe://example/prometheus"], true),
        (vec!["ops@example.org"], true),
        (vec!["2001:db8::7"], true),
        (vec!["other.example"], false),
        (vec!["*.example"], false),
        (vec!["PROMETHEUS.example"], false),
        (vec!["192.0.2.8"], false),
        (vec![], false),
    ] {
        let client = authority.client(&names);
        assert_eq!(is_let_in(&door, &authority, Some(&client)).await, expected, "{names:?}");
    }
}

#[tokio::test]
async fn versions_and_suites_are_those_of_the_file() {
    let authority = Authority::new();
    let server = authority.server();
    let ecdsa = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]";
    for (more, [old, new]) in [
        ("min_version: TLS12", [true, true]),
        ("min_version: TLS13", [false, true]),
        ("max_version: TLS12", [true, false]),
        (ecdsa, [true, true]),
        // The certificate's key is ECDSA: nothing is left for TLS 1.2.
        ("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]", [false, true]),
    ] {
        let web = format!("tls_server_config: {{ cert_file: server.crt, key_file: server.key, {more} }}\n");
        let files = [
            ("web.yml", &*web),
            ("server.crt", &*server.certificate),
            ("server.key", &*server.key),
        ];
        let door = Server::start(&files).await;
        for (version, expected) in [(&rustls::version::TLS12, old), (&rustls::version::TLS13, new)] {
            let client = client_config(&authority, None, &[version], &[]);
            let stream = handshake(door.address, &client).await;
            assert_eq!(stream.is_ok(), expected, "{more} {version:?}");
            if let (Ok(stream), true, true) = (
                stream,
                more == ecdsa,
                expected && version.version == rustls::ProtocolVersion::TLSv1_2,
            ) {
                let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
                assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
            }
        }
    }
}

#[tokio::test]
async fn changed_files_are_used_without_a_restart_and_bad_ones_are_not() {
    let authority = Authority::new();
    let (first, second) = (authority.server(), authority.server());
    let users = |password: &str| format!("{TLS}basic_auth_users: {{ alice: '{}' }}\n", hash(password, 4));
    let web = users("one");
    let files = [
        ("web.yml", &*web),
        ("server.crt", &*first.certificate),
        ("server.key", &*first.key),
    ];
    let door = Server::start(&files).await;
    let client = client_config(&authority, None, rustls::ALL_VERSIONS, &[]);
    let met = async |password: &str| {
        let stream = handshake(door.address, &client).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        (shown, ask(stream, "/metrics", &basic("alice", password)).await.0)
    };
    let (before, after) = (certificate(&first.certificate), certificate(&second.certificate));
    assert_eq!(met("one").await, (before.clone(), 200));

    // A certificate without its key, as in the middle of a rotation, is not used; together they are.
    door.write("server.crt", &second.certificate);
    wait_for("the bad pair is noticed", async || {
        assert_eq!(met("one").await, (before.clone(), 200));
        (door.told().last() == Some(&false)).then_some(())
    })
    .await;
    door.write("server.key", &second.key);
    wait_for("the new certificate", async || {
        (met("one").await == (after.clone(), 200)).then_some(())
    })
    .await;
    assert_eq!(door.told(), [true, false, true]);

    // Passwords.
    door.write("web.yml", &users("two"));
    wait_for("the new password", async || (met("two").await.1 == 200).then_some(())).await;
    assert_eq!(met("one").await.1, 401);

    // Neither nonsense nor a file that protects less is used, and a file that is gone changes nothing.
    for less in ["nonsense: 1", TLS, "", "basic_auth_users: {}"] {
        let told = door.told().len();
        door.write("web.yml", less);
        wait_for("the bad file is noticed", async || {
            assert_eq!(met("one").await.1, 401, "{less}");
            assert_eq!(met("two").await, (after.clone(), 200), "{less}");
            (door.told().len() > told).then_some(())
        })
        .await;
        assert_eq!(door.told().last(), Some(&false), "{less}");
    }
    fs::remove_file(door.path("web.yml")).unwrap();
    wait_for("the missing file is noticed", async || {
        assert_eq!(met("two").await.1, 200);
        (door.told().len() == 9).then_some(())
    })
    .await;
    door.write("web.yml", &users("three"));
    wait_for("the file that is back", async || {
        (met("three").await.1 == 200).then_some(())
    })
    .await;
    assert_eq!(door.told().last(), Some(&true));
}

#[tokio::test]
async fn the_rate_limit_of_the_file_holds_for_all_clients_together() {
    let files = [("web.yml", "rate_limit: { interval: 1h, burst: 3 }\n")];
    let door = Server::start(&files).await;
    let mut codes = Vec::new();
    for last in 1..=5 {
        let stream = connect_from(door.address, [127, 0, 0, last]).await;
        codes.push(ask(stream, "/metrics", "").await.0);
    }
    assert_eq!(codes, [200, 200, 200, 429, 429]);
}

/// A cost at which guesses take a noticeable time, so that a crowd of them is a queue.
const NOTICEABLE_COST: u32 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_passwords_keeps_nobody_out_who_was_let_in() {
    let web = format!(
        "basic_auth_users: {{ alice: '{}', bob: '{}' }}\n",
        hash("secret", NOTICEABLE_COST),
        hash("b", NOTICEABLE_COST)
    );
    let door = Server::start(&[("web.yml", &*web)]).await;
    let address = door.address;
    let right = basic("alice", "secret");
    assert_eq!(
        ask(connect_from(address, [127, 0, 0, 1]).await, "/metrics", &right)
            .await
            .0,
        200
    );
    let stop = CancellationToken::new();
    let guessers: Vec<_> = (0..50)
        .map(|number| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let (mut refused, mut busy) = (0, 0);
                while !stop.is_cancelled() {
                    let user = if number % 2 == 0 { "alice" } else { "nobody" };
                    let stream = connect_from(address, [127, 0, 1, number]).await;
                    match ask(stream, "/metrics", &basic(user, "guess")).await.0 {
                        401 => refused += 1,
                        503 => busy += 1,
                        other => panic!("{other}"),
                    }
                }
                (refused, busy)
            })
        })
        .collect();
    // Until a queue is there.
    wait_for("guesses are refused", async || {
        let (code, _) = ask(
            connect_from(address, [127, 0, 0, 9]).await,
            "/metrics",
            &basic("alice", "x"),
        )
        .await;
        (code == 401).then_some(())
    })
    .await;
    for _ in 0..50 {
        let (code, _) = ask(connect_from(address, [127, 0, 0, 1]).await, "/metrics", &right).await;
        assert_eq!(code, 200);
    }
    // And somebody else who comes for the first time gets a turn.
    let newcomer = Instant::now();
    let (code, _) = ask(
        connect_from(address, [127, 0, 0, 2]).await,
        "/metrics",
        &basic("bob", "b"),
    )
    .await;
    assert_eq!(code, 200, "after {:?}", newcomer.elapsed());
    stop.cancel();
    let mut refused = 0;
    for guesser in guessers {
        refused += guesser.await.unwrap().0;
    }
    assert!(refused > 0);
}

/// As an editor or a copy that has only begun leaves it: each of these is a valid file.
#[tokio::test]
async fn a_file_that_asks_less_of_certificates_is_not_used() {
    let authority = Authority::new();
    let server = authority.server();
    let web = |more: &str| {
        format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.crt\n{more}")
    };
    let whole = web("  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.test]\n");
    let files = [
        ("web.yml", &*whole),
        ("server.crt", &*server.certificate),
        ("server.key", &*server.key),
        ("ca.crt", &*authority.pem()),
    ];
    let door = Server::start(&files).await;
    let strangers = [
        None,
        Some(authority.client(&["stranger.test"])),
        Some(Authority::new().client(&["prometheus.test"])),
    ];
    for less in [
        "  client_auth_type: RequireAndVerifyClientCert\n",
        "  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans:\n",
        "  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [prometheus.test]\n",
        "  client_auth_type: VerifyClientCertIfGiven\n",
    ] {
        let told = door.told().len();
        door.write("web.yml", &web(less));
        wait_for("the file is noticed", async || {
            for client in &strangers {
                assert!(!is_let_in(&door, &authority, client.as_ref()).await, "{less}");
            }
            (door.told().len() > told).then_some(())
        })
        .await;
        assert_eq!(door.told().last(), Some(&false), "{less}");
    }
    let more = whole.replace("[prometheus.test]", "[prometheus.test, other.test]");
    door.write("web.yml", &more);
    wait_for("the good file is used", async || {
        assert!(!is_let_in(&door, &authority, None).await);
        (door.told().last() == Some(&true)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn problems_of_a_file_name_the_file_that_they_are_in() {
    let authority = Authority::new();
    let (server, other) = (authority.server(), authority.server());
    let check = |files: &[(&str, &str)], expected: &str| {
        let directory = TempDir::new().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let problems = Access::check(&directory.path().join("web.yml")).problems;
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let shown = shown
            .join("\n")
            .replace(&format!("{}/", directory.path().display()), "");
        assert_eq!(shown, expected);
    };
    let (crt, key) = (("server.crt", &*server.certificate), ("server.key", &*server.key));
    check(&[("web.yml", TLS), crt, key], "");
    check(
        &[],
        "the file cannot be read: no such file or directory; expected a readable file",
    );
    check(
        &[("web.yml", TLS)],
        "tls_server_config.cert_file: server.crt: the file cannot be read: no such file or directory; expected a readable file\n\
         tls_server_config.key_file: server.key: the file cannot be read: no such file or directory; expected a readable file",
    );
    check(
        &[("web.yml", TLS), crt, ("server.key", &*other.key)],
        "tls_server_config.key_file: it does not belong to the certificate; expected the certificate's own",
    );
    check(
        &[("web.yml", TLS), crt, ("server.key", &*server.certificate)],
        "tls_server_config.key_file: there is no private key in it; expected PEM, without a password",
    );
    check(
        &[("web.yml", TLS), ("server.crt", "nothing"), key],
        "tls_server_config.cert_file: there is no certificate in it; expected PEM, the server's own first",
    );
    let web = TLS.replace(
        " }",
        ", client_auth_type: RequireAndVerifyClientCert, client_ca: nothing }",
    );
    check(
        &[("web.yml", &*web), crt, key],
        "tls_server_config.client_ca: there is no certificate in it; expected PEM",
    );
}
