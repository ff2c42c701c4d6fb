use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::serve::{LIMITS, Limits, serve_within};
use super::*;

/// What the server is handed in these tests.
#[derive(Default)]
struct Stage {
    ready: AtomicBool,
    unhealthy: AtomicBool,
    /// An exposition larger than any socket's buffers.
    huge: AtomicBool,
    /// The generation last told, and how often one was.
    scraped: AtomicU64,
    scrapes: AtomicU64,
}

impl View for Stage {
    fn metrics(&self, wanted: Wanted) -> Scrape {
        if self.huge.load(Ordering::SeqCst) {
            return Scrape {
                generation: 43,
                body: Pieces::Ready(Arc::from([Bytes::from(vec![b'#'; 64 << 20])])),
                end: Bytes::new(),
                gzipped: false,
            };
        }
        let end = match wanted.format {
            Format::Text => "",
            Format::OpenMetrics => "# EOF\n",
        };
        Scrape {
            generation: 42,
            body: Pieces::Ready(
                ["up 1\n", "", "down 0\n"]
                    .map(|piece| Bytes::from_static(piece.as_bytes()))
                    .into(),
            ),
            end: Bytes::from_static(end.as_bytes()),
            gzipped: wanted.gzip,
        }
    }
    fn scraped(&self, generation: u64) {
        self.scraped.store(generation, Ordering::SeqCst);
        self.scrapes.fetch_add(1, Ordering::SeqCst);
    }
    fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }
    fn healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::SeqCst)
    }
    fn status_json(&self) -> String {
        "{}".to_owned()
    }
    fn landing(&self) -> Landing {
        let row = LandingRow {
            source: "<script>alert('1')</script>".to_owned(),
            kind: "empirical".to_owned(),
            base_url: "https://a.example/\"><i>".to_owned(),
            health: Health::Down,
            health_words: "down since 12:00".to_owned(),
            last_error: Some("401 & \"so on\"".to_owned()),
            advice: vec!["mount a new token".to_owned()],
            gates: vec![
                gate("<staging>", Some(false), "blocked by stale, case_failing"),
                gate("production", Some(true), "promotable"),
                gate("", None, "and 1 more"),
            ],
            ..LandingRow::default()
        };
        Landing {
            version: "1.2.3".to_owned(),
            notes: vec![LandingNote {
                about: "Ledger".to_owned(),
                state: "not written".to_owned(),
                words: "Counters stand still.".to_owned(),
                problems: vec!["no <space>".to_owned()],
            }],
            rows: vec![row],
        }
    }
    async fn reload(&self) -> Result<String, String> {
        Ok("reloaded".to_owned())
    }
}

fn gate(environment: &str, open: Option<bool>, words: &str) -> LandingGate {
    LandingGate {
        environment: environment.to_owned(),
        open,
        words: words.to_owned(),
    }
}

fn settings() -> Settings {
    Settings {
        telemetry_path: "/metrics".to_owned(),
        enable_lifecycle: true,
        access: None,
    }
}

fn ask(method: &Method, path: &str, has_body: bool, stage: &Stage) -> Answer {
    let headers = &HeaderMap::new();
    let asked = Asked {
        method,
        path,
        headers,
        has_body,
    };
    respond(asked, stage, &settings())
}

fn header(answer: &Answer, name: HeaderName) -> &str {
    answer
        .response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

fn body(answer: Answer) -> String {
    let mut frames = answer.response.into_body();
    let all: Vec<u8> = std::iter::from_fn(|| frames.next()).flatten().collect();
    String::from_utf8(all).unwrap()
}

#[test]
fn each_path_and_method_has_its_answer() {
    let check = |method: Method, path: &str, has_body: bool, status: u16| {
        let answer = ask(&method, path, has_body, &Stage::default());
        assert_eq!(answer.response.status().as_u16(), status, "{method} {path}");
        assert_eq!(header(&answer, CACHE_CONTROL), "no-store");
        assert_eq!(header(&answer, X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(header(&answer, ALLOW), if status == 405 { "GET, HEAD" } else { "" });
        assert_eq!(header(&answer, CONNECTION), if has_body { "close" } else { "" });
        assert!(answer.scraped.is_none() || (method == Method::GET && path == "/metrics" && status == 200));
        let length = header(&answer, CONTENT_LENGTH).to_owned();
        let length_sent = body(answer).len();
        assert_eq!(
            length_sent.to_string(),
            if method == Method::HEAD {
                "0".to_owned()
            } else {
                length.clone()
            }
        );
        assert_ne!(length, "0");
    };
    for path in ["/metrics", "/", "/-/healthy", "/api/v1/status"] {
        check(Method::GET, path, false, 200);
        check(Method::HEAD, path, false, 200);
        check(Method::GET, path, true, 400);
        check(Method::POST, path, true, 405);
        check(Method::DELETE, path, false, 405);
    }
    check(Method::POST, "/-/reload", true, 400);
    for path in ["/metrics/", "/-/reload/", "//", "/index.html", "/Metrics", "*", ""] {
        check(Method::GET, path, false, 404);
        check(Method::POST, path, true, 404);
    }
    check(Method::GET, "/-/ready", false, 503);
    check(Method::OPTIONS, "/metrics", false, 405);
}

#[test]
fn an_exposition_says_its_format_and_which_snapshot_it_shows() {
    let stage = Stage::default();
    let answer = ask(&Method::GET, "/metrics", false, &stage);
    assert_eq!(
        header(&answer, CONTENT_TYPE),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(header(&answer, CONTENT_LENGTH), "12");
    assert_eq!(answer.scraped, Some(42));
    assert_eq!(body(answer), "up 1\ndown 0\n");
    assert_eq!(
        stage.scrapes.load(Ordering::SeqCst),
        0,
        "answering is pure: who sends it tells"
    );
    let head = ask(&Method::HEAD, "/metrics", false, &stage);
    assert_eq!(
        (header(&head, CONTENT_LENGTH), head.scraped),
        ("12", None),
        "nobody has seen the values"
    );
}

#[test]
fn an_exposition_comes_in_the_form_that_is_asked_for_and_says_so() {
    let check = |method: &Method, accept: &'static str, encoding: &'static str, expected: [&str; 3]| {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        let asked = Asked {
            method,
            path: "/metrics",
            headers: &headers,
            has_body: false,
        };
        let answer = respond(asked, &Stage::default(), &settings());
        let said = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH].map(|name| header(&answer, name));
        assert_eq!(said, expected, "{method} {accept} {encoding}");
        assert_eq!(header(&answer, VARY), "accept, accept-encoding");
    };
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for method in [&Method::GET, &Method::HEAD] {
        check(method, "*/*", "identity", [text, "", "12"]);
        check(method, "*/*", "gzip", [text, "gzip", "12"]);
        check(
            method,
            "application/openmetrics-text",
            "gzip;q=0",
            [open_metrics, "", "18"],
        );
        check(
            method,
            "application/openmetrics-text",
            "gzip",
            [open_metrics, "gzip", "18"],
        );
    }
}

#[test]
fn the_telemetry_path_is_configurable_and_wins() {
    let settings = Settings {
        telemetry_path: "/".to_owned(),
        enable_lifecycle: false,
        access: None,
    };
    let headers = HeaderMap::new();
    let asked = |path| Asked {
        method: &Method::GET,
        path,
        headers: &headers,
        has_body: false,
    };
    assert_eq!(respond(asked("/"), &Stage::default(), &settings).scraped, Some(42));
    assert_eq!(
        respond(asked("/metrics"), &Stage::default(), &settings)
            .response
            .status(),
        404
    );
}

#[test]
fn probes_follow_the_view() {
    let stage = Stage::default();
    let status = |path| ask(&Method::GET, path, false, &stage).response.status().as_u16();
    assert_eq!((status("/-/ready"), status("/-/healthy")), (503, 200));
    stage.ready.store(true, Ordering::SeqCst);
    stage.unhealthy.store(true, Ordering::SeqCst);
    assert_eq!((status("/-/ready"), status("/-/healthy")), (200, 503));
}

#[test]
fn the_landing_page_escapes_what_it_is_handed() {
    let answer = ask(&Method::GET, "/", false, &Stage::default());
    assert_eq!(header(&answer, CONTENT_TYPE), "text/html; charset=utf-8");
    assert!(header(&answer, CONTENT_SECURITY_POLICY).starts_with("default-src 'none'; style-src 'sha256-"));
    assert_eq!(
        (header(&answer, X_FRAME_OPTIONS), header(&answer, REFERRER_POLICY)),
        ("DENY", "no-referrer")
    );
    let page = body(answer);
    insta::assert_snapshot!(page.split_once("<header>\n").unwrap().1, @r#"
    <h1>testrun-exporter</h1>
    <p>1 source, 0 up &middot; version 1.2.3</p>
    </header>
    <nav><a href="/metrics">Metrics</a><a href="/-/healthy">Health</a><a href="/-/ready">Readiness</a><a href="/api/v1/status">Status as JSON</a></nav>
    <main>
    <article class="down">
    <h2>Ledger <span>not written</span></h2>
    <dl>
    <dd class="note">Counters stand still.</dd>
    <dd class="note">no &lt;space&gt;</dd>
    </dl>
    </article>
    <article class="down">
    <h2>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; <span>down since 12:00</span></h2>
    <dl>
    <dt>Platform</dt><dd>empirical, <a href="https://a.example/&quot;&gt;&lt;i&gt;" rel="noreferrer">https://a.example/&quot;&gt;&lt;i&gt;</a></dd>
    <dt>Gate</dt><dd class="gate down"><b>&lt;staging&gt;</b> blocked by stale, case_failing</dd>
    <dd class="gate up"><b>production</b> promotable</dd>
    <dd class="gate">and 1 more</dd>
    <dd class="note"><b>Last error</b> 401 &amp; &quot;so on&quot;</dd>
    <dd class="note"><b>Advice</b> mount a new token</dd>
    </dl>
    </article>
    </main>
    </body>
    </html>
    "#);
}

#[test]
fn the_style_is_the_one_that_the_policy_allows() {
    let sha256 = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .unwrap()
        .common
        .hash_provider;
    let hash = base64(sha256.hash(landing::STYLE.as_bytes()).as_ref());
    assert!(
        landing::CONTENT_SECURITY_POLICY.contains(&format!("'sha256-{hash}'")),
        "put sha256-{hash} into the policy"
    );
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// A real server on loopback.
struct Server {
    address: std::net::SocketAddr,
    stage: Arc<Stage>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        Self::start_within(LIMITS).await
    }

    async fn start_within(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, shutdown) = (Arc::new(Stage::default()), CancellationToken::new());
        let task = tokio::spawn(serve_within(
            limits,
            listener,
            Arc::clone(&stage),
            settings(),
            shutdown.clone(),
        ));
        Self {
            address,
            stage,
            shutdown,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads until the server closes. A reset, as by a server that did not read all, is an end too.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        read_to_end(&mut stream).await
    }
}

const HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("the server closes the connection");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_scrape_is_sent_with_its_exact_length_and_told_of() {
    let server = Server::start().await;
    let answer = server
        .exchange("GET /metrics?name[]=x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-length: 12\r\n") && !answer.contains("chunked"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nup 1\ndown 0\n"), "{answer}");
    assert_eq!(server.stage.scraped.load(Ordering::SeqCst), 42);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start().await;
    let answer = server
        .exchange("HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        answer.contains("content-length: 12\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(server.stage.scrapes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let one = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = server.exchange(&format!("{one}{one}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answer}");
    assert!(answer.ends_with("healthy\n"), "{answer}");
    assert_eq!(server.stage.scrapes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_is_refused_unread_and_its_connection_closed() {
    let server = Server::start().await;
    let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc";
    let answer = server.exchange(post).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let get = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = server.exchange(get).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_cut_off() {
    let server = Server::start_within(Limits {
        header_read: Duration::from_millis(200),
        ..LIMITS
    })
    .await;
    let (silent, half) = tokio::join!(
        server.exchange(""),
        server.exchange("GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    );
    assert!(!silent.contains("200") && !half.contains("200"), "{silent}{half}");
}

#[tokio::test]
async fn a_connection_ends_when_its_time_is_over() {
    let short = Duration::from_millis(200);
    let server = Server::start_within(Limits {
        connection: short,
        grace: short,
        ..LIMITS
    })
    .await;
    let answer = server.exchange("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("healthy\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_is_cut_off_when_its_time_is_over() {
    let short = Duration::from_millis(200);
    let limits = Limits {
        connection: short,
        grace: short,
        ..LIMITS
    };
    let server = Server::start_within(limits).await;
    server.stage.huge.store(true, Ordering::SeqCst);
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let cut_off = async {
        // The server has no way to say it but by closing: from then on writing fails.
        while deaf.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), cut_off)
        .await
        .expect("the server closes the connection");
}

#[tokio::test]
async fn beyond_the_ceiling_the_connection_that_was_silent_longest_makes_room() {
    let server = Server::start_within(Limits {
        connections_max: 2,
        ..LIMITS
    })
    .await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    assert!(
        first.read(&mut answer).await.unwrap() > 0,
        "the first one speaks, the second is silent"
    );
    assert!(server.exchange(HEALTHY).await.ends_with("healthy\n"));
    assert_eq!(read_to_end(&mut second).await, "");
    first.write_all(HEALTHY.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut first).await.ends_with("healthy\n"));
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_ends_within_five_seconds() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    let count = idle.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK"));
    let _silent = server.connect().await;
    server.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .expect("it ends in time");
    ended.unwrap().unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens any more"
    );
}
