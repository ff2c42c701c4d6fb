//! What a scrape and a publication cost. `cargo bench --bench scrape`; `-- 3` takes three rounds instead of nine, and a word
//! takes one part of it: `publications`, `allocations`, `scrapes`, `changes`. `memory` is not taken without its word: it wants
//! a process in which nothing else was measured.
//!
//! Everything that is compared runs in one process and in turns, so that the ratios hold on whatever machine this is. A
//! scrape is one request over a kept connection on loopback, its answer read to the end and thrown away by a client in a
//! process of its own; its CPU is that of the server's process.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]

#[path = "scrape/memory.rs"]
mod memory;
mod suite;
#[path = "suite/view.rs"]
mod view;

use std::alloc::{GlobalAlloc, Layout, System};
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
use prometheus::{Encoder as _, Registry, TextEncoder};
use suite::{CASES, case_rows, change, dice, registry, run, snapshot};
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::ends::{Body, Complete, Ends};
use testrun_exporter::metrics::own::{BuildInfo, Own, SourceInfo};
use testrun_exporter::metrics::render::{Rendered, Renderer};
use testrun_exporter::store::{CaseRow, CountedRun};
use testrun_exporter::web;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use view::Scraped;

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

fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
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

/// 1 % of the cases.
const ONE_RUN: usize = CASES / 100;

/// Our server's view: a publication, as the application has one.
struct View {
    rendered: ArcSwap<Rendered>,
    ends: Ends,
}

impl View {
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
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn settings() -> web::Settings {
    web::Settings {
        telemetry_path: "/metrics".to_owned(),
        enable_lifecycle: false,
        access: None,
    }
}

fn shown(view: Arc<View>) -> Arc<impl web::View> {
    Arc::new(Scraped(move |wanted| view.metrics(wanted)))
}

async fn serve_ours(view: Arc<View>) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(web::serve(listener, shown(view), settings(), CancellationToken::new()));
    address
}

/// Until the process is ended.
async fn serve_ours_at(view: Arc<View>, address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    web::serve(listener, shown(view), settings(), CancellationToken::new())
        .await
        .unwrap();
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

const PLAIN_REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\n\r\n";

/// How a scraper asks, and how it takes the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Gzip,
    Plain,
    SlowGzip,
    SlowPlain,
}

impl Way {
    const ALL: [(&str, Self); 4] = [
        ("gzip", Self::Gzip),
        ("plain", Self::Plain),
        ("slow-gzip", Self::SlowGzip),
        ("slow-plain", Self::SlowPlain),
    ];

    fn request(self) -> &'static [u8] {
        match self {
            Self::Gzip | Self::SlowGzip => REQUEST,
            Self::Plain | Self::SlowPlain => PLAIN_REQUEST,
        }
    }

    fn is_slow(self) -> bool {
        matches!(self, Self::SlowGzip | Self::SlowPlain)
    }
}

/// A slow reader takes so much at a time, and so many milliseconds between.
const SLOW_BYTES: usize = 16 * 1024;
const SLOW_MILLISECONDS: u64 = 50;

/// Scrapes for a while over some connections; the time of each scrape.
async fn scrape(address: SocketAddr, connections: usize, during: Duration, way: Way) -> Vec<Duration> {
    let until = Instant::now() + during;
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                if way.is_slow() {
                    // Otherwise the system takes for it what it does not.
                    socket.set_recv_buffer_size(SLOW_BYTES as u32).unwrap();
                }
                let mut stream = socket.connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; if way.is_slow() { SLOW_BYTES } else { 256 * 1024 }];
                let mut times = Vec::new();
                while Instant::now() < until {
                    let start = Instant::now();
                    let whole = one(&mut stream, &mut buffer, way);
                    if !way.is_slow() {
                        whole.await;
                    } else if tokio::time::timeout_at(until.into(), whole).await.is_err() {
                        break;
                    }
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
async fn one(stream: &mut TcpStream, buffer: &mut [u8], way: Way) -> usize {
    stream.write_all(way.request()).await.unwrap();
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
        if way.is_slow() {
            tokio::time::sleep(Duration::from_millis(SLOW_MILLISECONDS)).await;
        }
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

/// The first argument of the process that scrapes: where, over how many connections, for how many milliseconds, and how.
const CLIENT: &str = "--client";

/// What that process does: each scrape's time in milliseconds, a line each.
fn client(arguments: &[String]) {
    let [address, connections, milliseconds, way] = arguments else {
        panic!("{CLIENT} ADDRESS CONNECTIONS MILLISECONDS WAY");
    };
    let way = Way::ALL.iter().find(|(name, _)| name == way).unwrap().1;
    let times = runtime().block_on(scrape(
        address.parse().unwrap(),
        connections.parse().unwrap(),
        Duration::from_millis(milliseconds.parse().unwrap()),
        way,
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
            .arg("gzip")
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
                    let number = 3 * round + second;
                    let start = number * ONE_RUN % (rows.len() - ONE_RUN);
                    let by = run(1 + number as u64);
                    rows[start..start + ONE_RUN].iter_mut().for_each(|row| change(row, &by));
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
        one(&mut stream, &mut buffer, Way::Gzip).await;
    }
    // The fewest of some tries: once a second one of them reads our own health anew.
    let mut fewest = (u64::MAX, u64::MAX);
    for _ in 0..9 {
        let before = (
            ALLOCATIONS.load(Ordering::Relaxed),
            ALLOCATED_BYTES.load(Ordering::Relaxed),
        );
        for _ in 0..SCRAPES {
            one(&mut stream, &mut buffer, Way::Gzip).await;
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
fn publishing(what: &str, rounds: usize, mut touch: impl FnMut(&mut [CaseRow], &Arc<CountedRun>)) {
    let mut line = String::new();
    for (formats, packed) in [
        ("text", &[Format::Text][..]),
        ("OpenMetrics", &[Format::OpenMetrics]),
        ("both", &Format::ALL),
    ] {
        let mut rows = case_rows(CASES);
        let mut renderer = Renderer::default();
        let mut shown = renderer.render_for(&snapshot(rows.clone()), packed);
        let times = (0..rounds.max(3) as u64)
            .map(|round| {
                touch(&mut rows, &run(1 + round));
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
    publishing("10 changed cases", rounds, |rows, by| {
        for _ in 0..10 {
            let place = random() as usize % rows.len();
            change(&mut rows[place], by);
        }
    });
    publishing("one run's contiguous 1 %", rounds, |rows, by| {
        let start = (by.run as usize * 997) % (rows.len() - ONE_RUN);
        rows[start..start + ONE_RUN].iter_mut().for_each(|row| change(row, by));
    });
    publishing("a random 1 %", rounds, |rows, by| {
        for _ in 0..ONE_RUN {
            let place = random() as usize % rows.len();
            change(&mut rows[place], by);
        }
    });
    publishing("everything", rounds, |rows, by| {
        rows.iter_mut().for_each(|row| change(row, by))
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(CLIENT) => return client(&arguments[1..]),
        Some("memory") => return runtime().block_on(memory::measure()),
        _ => {}
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(9);
    let parts = ["publications", "allocations", "scrapes", "changes"];
    let word = arguments.iter().find(|argument| parts.contains(&argument.as_str()));
    let wanted = |part: &str| word.is_none_or(|word| word == part);
    let rows = case_rows(CASES);
    let mut renderer = Renderer::default();
    let rendered = renderer.render(&snapshot(rows.clone()));
    let view = |rendered| {
        Arc::new(View {
            rendered: ArcSwap::from_pointee(rendered),
            ends: Ends::new(own()),
        })
    };
    // For a comparison with other servers: see peers.sh.
    if let Ok(path) = std::env::var("SCRAPE_TEXT") {
        return std::fs::write(path, rendered.text.to_text()).unwrap();
    }
    if let Ok(address) = std::env::var("SCRAPE_SERVE") {
        return runtime().block_on(serve_ours_at(view(rendered), &address));
    }
    let series: u64 = rendered.series.iter().map(|(_, count)| count).sum();
    println!("{CASES} cases, {series} series");
    if wanted("publications") {
        publications(rounds);
        own_health();
    }
    let small = view(Renderer::default().render(&snapshot(case_rows(CASES / 100))));
    let large = view(rendered.clone());
    runtime().block_on(async {
        if wanted("allocations") {
            allocations(&small).await;
            allocations(&large).await;
        }
        if wanted("scrapes") {
            let registry = registry(std::str::from_utf8(&rendered.text.to_text()).unwrap());
            sizes(&rendered, &registry);
            against_others(&small, 1_000, rounds, None).await;
            against_others(&large, 100_000, rounds, Some(&registry)).await;
        }
        if wanted("changes") {
            while_data_change(&large, &rows, renderer, rounds).await;
        }
    });
}
