//! What a scrape takes from the allocator. A binary of its own, because its allocator counts.

#![allow(
    unsafe_code,
    dead_code,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs
)]

#[path = "../benches/suite/mod.rs"]
mod suite;
#[path = "../benches/suite/view.rs"]
mod view;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use suite::{CASES, case_rows, snapshot};
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::ends::{Body, Complete, Ends};
use testrun_exporter::metrics::own::{BuildInfo, Own, SourceInfo};
use testrun_exporter::metrics::render::{Rendered, render};
use testrun_exporter::web;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use view::Scraped;

/// What this thread has allocated: how often, and how many bytes. What grows counts as a whole.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(bytes: usize) {
    ALLOCATED.set({
        let (times, total) = ALLOCATED.get();
        (times + 1, total + bytes as u64)
    });
}

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
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

struct View {
    rendered: Arc<Rendered>,
    ends: Ends,
    /// Our own health is read anew when a second has passed.
    seconds: AtomicI64,
    /// So much later is the next scrape.
    pause: i64,
}

impl View {
    fn metrics(&self, wanted: web::Wanted) -> web::Scrape {
        let now = Timestamp::from_second(self.seconds.fetch_add(self.pause, Ordering::Relaxed)).unwrap();
        let Complete { body, end, gzipped } = self.ends.complete(&self.rendered, Format::Text, wanted.gzip, now);
        let Body::Ready(pieces) = body else {
            panic!("it is compressed");
        };
        web::Scrape {
            generation: 1,
            body: web::Pieces::Ready(pieces),
            end,
            gzipped,
        }
    }
}

const SCRAPES: u64 = 100;

/// Of a scrape over a kept connection, so many seconds after the one before, client and server in one thread: allocations, and
/// bytes.
fn of_a_scrape(cases: usize, pause: i64) -> (f64, f64) {
    let build = BuildInfo {
        version: "1",
        revision: "2",
        rustc_version: "3",
    };
    let own = Own::new(build).unwrap();
    let info = SourceInfo {
        kind: "empirical",
        base_url: "https://platform.example".parse().unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    };
    drop(own.source("shop", &info));
    let view = View {
        rendered: Arc::new(render(&snapshot(case_rows(cases)))),
        ends: Ends::new(own),
        seconds: AtomicI64::new(0),
        pause,
    };
    let view = Arc::new(Scraped(move |wanted| view.metrics(wanted)));
    let settings = web::Settings {
        telemetry_path: "/metrics".to_owned(),
        enable_lifecycle: false,
        access: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(web::serve(listener, view, settings, CancellationToken::new()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..10 {
            scrape(&mut stream, &mut buffer).await;
        }
        let before = ALLOCATED.get();
        for _ in 0..SCRAPES {
            scrape(&mut stream, &mut buffer).await;
        }
        let after = ALLOCATED.get();
        [after.0 - before.0, after.1 - before.1]
            .map(|of_all| of_all as f64 / SCRAPES as f64)
            .into()
    })
}

/// Allocates nothing itself.
async fn scrape(stream: &mut TcpStream, buffer: &mut [u8]) {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\nAccept-Encoding: gzip\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut have = 0;
    let end = loop {
        have += stream.read(&mut buffer[have..]).await.unwrap();
        if let Some(end) = buffer[..have].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
    };
    let head = std::str::from_utf8(&buffer[..end]).unwrap();
    assert!(head.contains("content-encoding: gzip"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut left = end + 4 + length.unwrap().parse::<usize>().unwrap() - have;
    while left > 0 {
        left -= stream.read(buffer).await.unwrap();
    }
}

#[test]
fn a_compressed_scrape_takes_few_allocations_whatever_the_number_of_series() {
    for cases in [CASES / 100, CASES] {
        let (allocations, bytes) = of_a_scrape(cases, 0);
        println!("{cases} cases: {allocations} allocations, {bytes} bytes");
        assert!(
            allocations <= 10.0,
            "{allocations} allocations of a scrape of {cases} cases"
        );
        assert!(bytes <= 8192.0, "{bytes} bytes of a scrape of {cases} cases");
    }
}

/// The first scrape in a second reads our own health anew, through the registry of the prometheus crate.
#[test]
fn reading_our_own_health_takes_the_same_whatever_the_number_of_series() {
    let [few, many] = [CASES / 100, CASES].map(|cases| of_a_scrape(cases, 1));
    println!("with our own health: {few:?}, {many:?}");
    assert!((few.0 - many.0).abs() < 20.0, "{few:?} {many:?}");
    assert!(many.0 <= 3_000.0 && many.1 <= 256.0 * 1024.0, "{many:?}");
}
