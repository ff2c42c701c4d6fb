//! What a scrape and a publication cost. `cargo bench --bench scrape`; `-- 3` takes three rounds instead of nine.
//!
//! Everything that is compared runs in one process and in turns, so that the ratios hold on whatever machine this is. A
//! scrape is one request over a kept connection on loopback, its answer read to the end and thrown away by a client in a
//! process of its own; its CPU is that of the server's process.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::ends::{Body, Complete, Ends};
use testrun_exporter::metrics::own::{BuildInfo, Own, SourceInfo};
use testrun_exporter::metrics::render::{Rendered, Renderer};
use testrun_exporter::model::{ActiveState, CaseInfo, CaseOutcome, ErrorCode, Group};
use testrun_exporter::store::{CaseRow, CountedRun, Counts, LastResult, Promotion, Snapshot, SourceSnapshot};
use testrun_exporter::web;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED_BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED_BYTES.fetch_add(size as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Series of a case: 6 results, retries, 2 of the duration, 5 gauges.
const SERIES_PER_CASE: usize = 14;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + second).unwrap()
}

/// The same dice in every run.
fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn case_rows(count: usize) -> Vec<CaseRow> {
    let mut dice = dice(1);
    let mut rows: Vec<_> = (0..count)
        .map(|_| {
            let mut row = CaseRow {
                snoozed: false,
                created: None,
                group: Group {
                    environment: "staging".into(),
                    branch: "main".into(),
                },
                case: format!("{:016x}{:016x}", dice(), dice()).into(),
                counts: Counts {
                    results: [dice() % 300, dice() % 4, dice() % 3, 0, 0, 0],
                    retries: dice() % 4,
                    duration_sum: (dice() % 1_000_000) as f64 / 1000.0,
                    duration_count: dice() % 300,
                },
                came_back_at: None,
                last: None,
                last_pass: Some(at((dice() % 3600) as i64)),
                consecutive_failures: dice() % 20 / 19,
                failing_since: None,
                health: None,
                counted: Default::default(),
            };
            change(&mut row, 1);
            row
        })
        .collect();
    rows.sort_by(|a, b| a.case.cmp(&b.case));
    rows
}

/// One more run has passed.
fn change(row: &mut CaseRow, step: u64) {
    let ended = at(4000 + step as i64);
    row.counts.results[0] += 1;
    row.counts.duration_sum += 1.234;
    row.counts.duration_count += 1;
    row.last = Some(LastResult {
        outcome: CaseOutcome::Passed,
        at: Some(ended),
        duration_seconds: Some(1.234 + step as f64),
    });
    row.last_pass = Some(ended);
    row.counted[0] = Some(Arc::new(CountedRun {
        run: 4711 + step,
        url: Some("https://github.com/example/shop/actions/runs/4711".into()),
        at: Some(ended),
    }));
}

fn snapshot(cases: Vec<CaseRow>) -> Snapshot {
    let source = SourceSnapshot {
        snoozes: BTreeMap::new(),
        promotion: Promotion::default(),
        source: "shop".into(),
        project: None,
        groups: Vec::new(),
        run_errors: BTreeMap::new(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        runs_active: BTreeMap::new(),
        case_infos: Vec::<CaseInfo>::new(),
        case_outcomes: BTreeMap::new(),
        cases_folded: 0,
        as_of: Timestamp::UNIX_EPOCH,
        cases,
    };
    Snapshot {
        generation: 1,
        sources: vec![Arc::new(source)],
    }
}

fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A series' value of a case.
type Value = fn(&CaseRow) -> f64;

/// The same series in the prometheus crate; their types do not matter to the cost.
fn registry(snapshot: &Snapshot) -> Registry {
    let registry = Registry::new();
    let vector = |name: &str, labels: &[&str]| {
        let vector = GaugeVec::new(Opts::new(name, "Help."), labels).unwrap();
        registry.register(Box::new(vector.clone())).unwrap();
        vector
    };
    let case = ["source", "environment", "branch", "case"];
    let with_outcome = ["source", "environment", "branch", "case", "outcome"];
    let results = vector("testrun_case_results_total", &with_outcome);
    let last_outcome = vector("testrun_case_last_outcome", &with_outcome);
    let others: [(&str, Value); 7] = [
        ("testrun_case_retries_total", |row| row.counts.retries as f64),
        ("testrun_case_duration_seconds_sum", |row| row.counts.duration_sum),
        ("testrun_case_duration_seconds_count", |row| {
            row.counts.duration_count as f64
        }),
        ("testrun_case_last_run_timestamp_seconds", |row| {
            seconds(row.last.as_ref().and_then(|last| last.at))
        }),
        ("testrun_case_last_pass_timestamp_seconds", |row| seconds(row.last_pass)),
        ("testrun_case_last_duration_seconds", |row| {
            row.last
                .as_ref()
                .and_then(|last| last.duration_seconds)
                .unwrap_or_default()
        }),
        ("testrun_case_consecutive_failures", |row| {
            row.consecutive_failures as f64
        }),
    ];
    let others = others.map(|(name, value)| (vector(name, &case), value));
    for row in &snapshot.sources[0].cases {
        for outcome in CaseOutcome::ALL {
            let labels = ["shop", "staging", "main", &*row.case, outcome.label()];
            results
                .with_label_values(&labels)
                .set(row.counts.results[outcome.index()] as f64);
        }
        last_outcome
            .with_label_values(&["shop", "staging", "main", &*row.case, "passed"])
            .set(1.0);
        for (vector, value) in &others {
            vector
                .with_label_values(&["shop", "staging", "main", &*row.case])
                .set(value(row));
        }
    }
    registry
}

fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_second() as f64)
}

fn own() -> Own {
    let build = BuildInfo {
        version: "1.2.3",
        revision: "0123456789ab",
        rustc_version: "1.95.0",
    };
    let own = Own::new(build).unwrap();
    let info = SourceInfo {
        kind: "empirical",
        base_url: "https://api.example.test/".parse().unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    };
    let _source = own.source("shop", &info);
    own
}

/// Our server's view: a publication, as the application has one.
struct View {
    rendered: ArcSwap<Rendered>,
    ends: Ends,
}

impl web::View for View {
    fn metrics(&self, wanted: web::Wanted) -> web::Scrape {
        let rendered = self.rendered.load_full();
        let format = match wanted.format {
            web::Format::Text => Format::Text,
            web::Format::OpenMetrics => Format::OpenMetrics,
        };
        let Complete { body, end, gzipped } = self.ends.complete(&rendered, format, wanted.gzip, Timestamp::now());
        let body = match body {
            Body::Ready(pieces) => web::Pieces::Ready(pieces),
            Body::Text(text) => web::Pieces::Made {
                bytes: text.text_bytes(),
                pieces: Box::new(text.read()),
            },
        };
        web::Scrape {
            generation: rendered.generation,
            body,
            end,
            gzipped,
        }
    }
    fn scraped(&self, _: u64) {}
    fn ready(&self) -> bool {
        true
    }
    fn healthy(&self) -> bool {
        true
    }
    fn status_json(&self) -> String {
        String::new()
    }
    fn landing(&self) -> web::Landing {
        web::Landing::default()
    }
    async fn reload(&self) -> Result<String, String> {
        Ok(String::new())
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve_ours(view: Arc<View>) -> SocketAddr {
    let (listener, address) = listen().await;
    let settings = web::Settings {
        telemetry_path: "/metrics".to_owned(),
        enable_lifecycle: false,
        access: None,
    };
    tokio::spawn(web::serve(listener, view, settings, CancellationToken::new()));
    address
}

/// hyper, and the same bytes again and again.
async fn serve_static(body: Bytes) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let body = body.clone();
            tokio::spawn(async move {
                let service = service_fn(move |_| {
                    let response = http::Response::builder()
                        .header("content-type", "text/plain; version=0.0.4; charset=utf-8")
                        .header("content-encoding", "gzip")
                        .body(Full::new(body.clone()))
                        .unwrap();
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

const REQUEST: &[u8] =
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\nAccept-Encoding: gzip\r\n\r\n";

/// Scrapes for a while over some connections; the time of each scrape.
async fn scrape(address: SocketAddr, connections: usize, during: Duration) -> Vec<Duration> {
    let until = Instant::now() + during;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 256 * 1024];
                let mut times = Vec::new();
                while Instant::now() < until {
                    let start = Instant::now();
                    one(&mut stream, &mut buffer).await;
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

/// One request and its answer; the length of its body.
async fn one(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    stream.write_all(REQUEST).await.unwrap();
    let mut have = 0;
    let (head, length) = loop {
        have += stream.read(&mut buffer[have..]).await.unwrap();
        let Some(end) = buffer[..have].windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..end]).unwrap();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        break (end + 4, length.parse::<usize>().unwrap());
    };
    let mut left = (head + length).checked_sub(have).unwrap();
    while left > 0 {
        let read = stream.read(buffer).await.unwrap();
        assert!(read > 0);
        left -= read;
    }
    length
}

/// Two words of the C library, for the one clock that std does not have.
#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Time) -> i32;
}

/// Seconds that this process has computed for, to the nanosecond.
fn cpu() -> f64 {
    let mut time = Time {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: 64-bit Linux defines the type like this.
    assert_eq!(unsafe { clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }, 0);
    time.seconds as f64 + time.nanoseconds as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn at_rank(times: &mut [f64], rank: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * rank) as usize]
}

/// The first argument of the process that scrapes: where, over how many connections, for how many milliseconds.
const CLIENT: &str = "--client";

/// What that process does: each scrape's time in milliseconds, a line each.
fn client(arguments: &[String]) {
    let [address, connections, milliseconds] = arguments else {
        panic!("{CLIENT} ADDRESS CONNECTIONS MILLISECONDS");
    };
    let times = runtime().block_on(scrape(
        address.parse().unwrap(),
        connections.parse().unwrap(),
        Duration::from_millis(milliseconds.parse().unwrap()),
    ));
    let lines: Vec<_> = times
        .iter()
        .map(|time| format!("{}\n", time.as_secs_f64() * 1e3))
        .collect();
    print!("{}", lines.concat());
}

/// Each scrape's time in milliseconds, and the CPU of one.
async fn scraped(address: SocketAddr, connections: usize, milliseconds: u64) -> (Vec<f64>, f64) {
    let numbers = [connections as u64, milliseconds].map(|number| number.to_string());
    tokio::task::spawn_blocking(move || {
        let before = cpu();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([CLIENT, &address.to_string()])
            .args(numbers)
            .stderr(std::process::Stdio::inherit())
            .output()
            .unwrap();
        let cpu = (cpu() - before) * 1e3;
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let times: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
        let cpu = cpu / times.len() as f64;
        (times, cpu)
    })
    .await
    .unwrap()
}

/// p50, p99 and CPU of a scrape, in milliseconds.
async fn measured(address: SocketAddr, connections: usize) -> [f64; 3] {
    let (mut times, cpu) = scraped(address, connections, 400).await;
    [at_rank(&mut times, 0.5), at_rank(&mut times, 0.99), cpu]
}

/// The least, the middle and the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!(
        "{:.2}x ({:.2}..{:.2})",
        values[values.len() / 2],
        values[0],
        values[values.len() - 1]
    )
}

/// Against the same bytes and gzip -6 of the same text from hyper; and, if there is one, against a registry of the
/// prometheus crate, whose text is gathered, encoded and compressed for each scrape, but not even sent.
async fn against_others(view: &Arc<View>, series: usize, rounds: usize, registry: Option<&Registry>) {
    let rendered = view.rendered.load_full();
    let complete = view.ends.complete(&rendered, Format::Text, false, Timestamp::now());
    let text = [&complete.body.to_bytes()[..], &complete.end].concat();
    let ours = serve_ours(Arc::clone(view)).await;
    let same = view.ends.complete(&rendered, Format::Text, true, Timestamp::now());
    let same_bytes = serve_static([&same.body.to_bytes()[..], &same.end].concat().into()).await;
    let whole = serve_static(gzipped(&text).into()).await;
    for connections in [1, 8] {
        let mut rows: [Vec<[f64; 3]>; 3] = Default::default();
        let mut crate_cpu = Vec::new();
        for round in 0..rounds {
            let mut turns = [0, 1, 2];
            turns.rotate_left(round % 3);
            for turn in turns {
                rows[turn].push(measured([ours, same_bytes, whole][turn], connections).await);
            }
            if let Some(registry) = registry {
                crate_cpu.push(encoded(registry).1);
            }
        }
        let ratio = |other: usize, what: usize| {
            let pairs = rows[0].iter().zip(&rows[other]);
            spread(pairs.map(|(ours, other)| ours[what] / other[what]).collect())
        };
        let middle = |row: usize, what: usize| median(rows[row].iter().map(|row| row[what]).collect());
        let [p50, p99, cpu] = [0, 1, 2].map(|what| middle(0, what));
        println!("{series:>6} series, {connections} connections: p50 {p50:.3} ms, p99 {p99:.3} ms, CPU {cpu:.3} ms");
        for (other, name) in [(1, "the same bytes"), (2, "gzip -6 of the same text")] {
            println!(
                "       hyper, {name}: p50 {:.3} ms, CPU {:.3} ms; ours is {}, CPU {}",
                middle(other, 0),
                middle(other, 2),
                ratio(other, 0),
                ratio(other, 2),
            );
        }
        if registry.is_some() {
            let ratios = crate_cpu.iter().zip(&rows[0]).map(|(other, ours)| other / ours[2]);
            println!(
                "       GaugeVec + TextEncoder + gzip -6: CPU {:.0} ms, {} ours",
                median(crate_cpu.clone()),
                spread(ratios.collect())
            );
        }
    }
}

async fn while_data_change(view: &Arc<View>, rows: &[CaseRow], renderer: Renderer, rounds: usize) {
    let address = serve_ours(Arc::clone(view)).await;
    let mut ratios = Vec::new();
    let (mut all_idle, mut all_busy) = (Vec::new(), Vec::new());
    let mut state = (renderer, rows.to_vec());
    for round in 0..rounds {
        let (mut idle, _) = scraped(address, 1, 3_000).await;
        let publisher = {
            let view = Arc::clone(view);
            tokio::task::spawn_blocking(move || {
                let (mut renderer, mut rows) = state;
                for second in 0..3 {
                    std::thread::sleep(Duration::from_millis(if second == 0 { 500 } else { 1_000 }));
                    let start = (3 * round + second) * 71 % (rows.len() - 71);
                    rows[start..start + 71]
                        .iter_mut()
                        .for_each(|row| change(row, (3 * round + second) as u64));
                    let rendered = renderer.render_for(&snapshot(rows.clone()), &[Format::Text]);
                    view.rendered.store(Arc::new(rendered));
                }
                (renderer, rows)
            })
        };
        let (mut busy, _) = scraped(address, 1, 3_000).await;
        state = publisher.await.unwrap();
        ratios.push(at_rank(&mut busy, 0.99) / at_rank(&mut idle, 0.99));
        all_idle.extend(idle);
        all_busy.extend(busy);
    }
    println!(
        "p99 of a scrape: idle {:.3} ms, while 1 % of the cases change every second {:.3} ms: {}",
        at_rank(&mut all_idle, 0.99),
        at_rank(&mut all_busy, 0.99),
        spread(ratios)
    );
}

async fn allocations(view: &Arc<View>) {
    const SCRAPES: u64 = 200;
    let address = serve_ours(Arc::clone(view)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut buffer = vec![0; 256 * 1024];
    for _ in 0..20 {
        one(&mut stream, &mut buffer).await;
    }
    // The fewest of some tries: once a second one of them reads our own health anew.
    let mut fewest = (u64::MAX, u64::MAX);
    for _ in 0..9 {
        let before = (
            ALLOCATIONS.load(Ordering::Relaxed),
            ALLOCATED_BYTES.load(Ordering::Relaxed),
        );
        for _ in 0..SCRAPES {
            one(&mut stream, &mut buffer).await;
        }
        let count = ALLOCATIONS.load(Ordering::Relaxed) - before.0;
        let bytes = ALLOCATED_BYTES.load(Ordering::Relaxed) - before.1;
        fewest = fewest.min((count / SCRAPES, bytes / SCRAPES));
    }
    println!("allocations of a scrape: {}, {} bytes", fewest.0, fewest.1);
}

fn own_health() {
    let own = own();
    let times: Vec<f64> = (0..200)
        .map(|_| {
            let before = cpu();
            let text = own.render(Timestamp::now(), Format::OpenMetrics);
            assert!(!text.is_empty());
            (cpu() - before) * 1e6
        })
        .collect();
    println!("reading our own health, once a second at most: {:.0} us", median(times));
}

/// CPU of a publication, in milliseconds, when this is done to the rows before each: compressed in the one format that a
/// server asks for, and in both.
fn publishing(what: &str, rounds: usize, mut touch: impl FnMut(&mut [CaseRow], u64)) {
    let mut line = String::new();
    for (formats, packed) in [
        ("text", &[Format::Text][..]),
        ("OpenMetrics", &[Format::OpenMetrics]),
        ("both", &Format::ALL),
    ] {
        let mut rows = case_rows(100_000 / SERIES_PER_CASE);
        let mut renderer = Renderer::default();
        let mut shown = renderer.render_for(&snapshot(rows.clone()), packed);
        let times = (0..rounds.max(3) as u64)
            .map(|round| {
                touch(&mut rows, round);
                let next = snapshot(rows.clone());
                let before = cpu();
                // The one before goes: somebody has to pay for that, too.
                shown = renderer.render_for(&next, packed);
                (cpu() - before) * 1e3
            })
            .collect::<Vec<_>>();
        drop(shown);
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        line += &format!(" {:.2} ms, at least {least:.2} ({formats});", median(times));
    }
    println!("publishing {what}:{line}");
}

fn publications(rounds: usize) {
    let mut random = dice(7);
    publishing("10 changed cases", rounds, |rows, round| {
        for _ in 0..10 {
            let place = random() as usize % rows.len();
            change(&mut rows[place], round);
        }
    });
    publishing("one run's contiguous 1 %", rounds, |rows, round| {
        let start = (round as usize * 997) % (rows.len() - 71);
        rows[start..start + 71].iter_mut().for_each(|row| change(row, round));
    });
    publishing("a random 1 %", rounds, |rows, round| {
        for _ in 0..71 {
            let place = random() as usize % rows.len();
            change(&mut rows[place], round);
        }
    });
    publishing("everything", rounds, |rows, round| {
        rows.iter_mut().for_each(|row| change(row, round))
    });
    publishing("nothing", rounds, |_, _| {});
}

/// The gzip of a registry's text, and the CPU that it took, in milliseconds.
fn encoded(registry: &Registry) -> (Vec<u8>, f64) {
    let before = cpu();
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    let gzip = gzipped(&text);
    (gzip, (cpu() - before) * 1e3)
}

fn sizes(rendered: &Rendered, registry: &Registry) {
    let size = |format: Format| -> usize {
        rendered
            .exposition(format)
            .packed()
            .unwrap()
            .iter()
            .map(Bytes::len)
            .sum()
    };
    let (ours, other) = (size(Format::Text), encoded(registry).0.len());
    println!(
        "bytes, gzip: ours {ours}, OpenMetrics with exemplars {}, GaugeVec + TextEncoder + gzip -6 {other}: {:.2}x",
        size(Format::OpenMetrics),
        ours as f64 / other as f64
    );
}

fn resident_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == CLIENT) {
        return client(&arguments[1..]);
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(9);
    let before = resident_megabytes();
    let rows = case_rows(100_000 / SERIES_PER_CASE);
    let mut renderer = Renderer::default();
    let large = snapshot(rows.clone());
    let rendered = renderer.render(&large);
    // For other servers and compressors: see peers.sh.
    if let Ok(path) = std::env::var("SCRAPE_TEXT") {
        return std::fs::write(path, rendered.text.to_text()).unwrap();
    }
    println!(
        "resident memory: {:.0} MB with 100 000 series rendered in both formats, {before:.0} MB without",
        resident_megabytes()
    );
    publications(rounds);
    own_health();
    let registry = registry(&large);
    sizes(&rendered, &registry);
    let view = |rendered| {
        Arc::new(View {
            rendered: ArcSwap::from_pointee(rendered),
            ends: Ends::new(own()),
        })
    };
    let small = view(Renderer::default().render(&snapshot(case_rows(1000 / SERIES_PER_CASE))));
    let large = view(rendered);
    runtime().block_on(async {
        allocations(&small).await;
        allocations(&large).await;
        against_others(&small, 1_000, rounds, None).await;
        against_others(&large, 100_000, rounds, Some(&registry)).await;
        while_data_change(&large, &rows, renderer, rounds).await;
    });
}
