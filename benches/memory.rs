//! What a year costs in memory: a source of 10,000 cases, a run an hour, half of its cases renamed over the year; the store,
//! the rendered page as the daemon keeps it after every run, a scrape after every run, and a ledger. Prints the live heap and
//! the resident memory of the process every month. The page is compressed in OpenMetrics, which is what a Prometheus asks for;
//! in both formats with `both`. `cargo bench --bench memory -- [DAYS] [both]`.
//! What the sources themselves remember comes on top; the soak test in `tests/it` has them too.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use testrun_exporter::health;
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::render::Renderer;
use testrun_exporter::model::{
    ActiveState, CaseOutcome, CaseResult, ErrorCode, Fact, Group, Name, RoundResult, Run, RunOutcome, Update,
};
use testrun_exporter::store::ledger::{Directory, Identity, Kept, Ledger};
use testrun_exporter::store::{Limits, SourceSpec, Store};

/// Counts what lives.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CASES: u64 = 10_000;
/// The renaming is spread over so many.
const HOURS: u64 = 365 * 24;
/// Every run has so many of the cases.
const RESULTS: u64 = 1_000;

fn at(hour: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(hour).unwrap() * 3_600).unwrap()
}

/// Half of the cases get a new name in the course of the year, one after the other.
fn name(case: u64, hour: u64) -> Name {
    let renamed = case.is_multiple_of(2) && case * HOURS / CASES < hour;
    format!(
        "{}-{case:020}",
        if renamed {
            "5e41ab087439611e5cc1"
        } else {
            "bd4f0c1e96a2d88f31c0"
        }
    )
    .into()
}

fn round(hour: u64) -> Vec<Fact> {
    let run = Run {
        id: hour,
        group: Group {
            environment: "production".into(),
            branch: "main".into(),
        },
        outcome: RunOutcome::Passed,
        error_code: None,
        created: Some(at(hour)),
        started: Some(at(hour)),
        ended: Some(at(hour)),
        duration_seconds: Some(60.0),
        counts: [Some(RESULTS), Some(0), None, None, None, None],
        commit: Some(format!("{hour:040x}").into()),
        build_url: Some(format!("https://ci.example.test/shop/runs/{hour}").into()),
    };
    let result = |place: u64| CaseResult {
        run: hour,
        case: name((hour * RESULTS + place) % CASES, hour),
        outcome: CaseOutcome::ALL[usize::from((place + hour).is_multiple_of(50))],
        executed: Some(at(hour)),
        duration_seconds: Some(1.25),
        retries: Some(0),
        failure_signature: None,
    };
    std::iter::once(Fact::Run(run))
        .chain((0..RESULTS).map(|place| Fact::Result(result(place))))
        .collect()
}

fn resident() -> u64 {
    procfs::process::Process::myself()
        .unwrap()
        .status()
        .unwrap()
        .vmrss
        .unwrap()
}

fn main() {
    let day = Duration::from_secs(86_400);
    let limits = Limits {
        cases_max: 20_000,
        retention: 93 * day,
        series_ttl: 14 * day,
    };
    let spec = SourceSpec {
        name: "shop".into(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits,
        promotion: None,
        health: health::Settings::default(),
        created_timestamps: false,
    };
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let days: u64 = arguments
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(365);
    let packed = match arguments.iter().any(|argument| argument == "both") {
        true => &Format::ALL[..],
        false => &[Format::OpenMetrics],
    };
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::new(Directory::take(directory.path()).unwrap());
    let identity = Identity {
        name: "shop".to_owned(),
        kind: "empirical",
        base_url: "https://api.example.test/".to_owned(),
    };
    let mut store = Store::new(vec![spec], 200_000);
    let mut renderer = Renderer::default();
    let mut rendered = renderer.render_for(&store.newest(), packed);
    let mut scraped = 0;
    println!("before anything: {} kB resident; compressed: {packed:?}", resident());
    for hour in 1..=days * 24 {
        if hour > 1 {
            store.update(0, Update::Facts(round(hour)), at(hour), scraped);
        }
        let ended = Update::RoundEnded {
            result: RoundResult::Success,
            at: at(hour),
        };
        let Some(shown) = store.update(0, ended, at(hour), scraped) else {
            continue;
        };
        let mut size = 0;
        // A write a day: what it costs is measured elsewhere.
        if hour.is_multiple_of(24) {
            let kept = Kept {
                state: store.sources()[0].keep().unwrap().into(),
                memory: Bytes::new(),
                released: store.sources()[0].keep_released().unwrap().into(),
            };
            size = ledger.save(&identity, &kept).unwrap();
        }
        // The one before is served until this one is there.
        drop(std::mem::replace(&mut rendered, renderer.render_for(&shown, packed)));
        scraped = shown.generation;
        if hour.is_multiple_of(30 * 24) {
            let series: u64 = rendered.series.iter().map(|(_, count)| count).sum();
            println!(
                "day {:3}: {:6} kB live, {:6} kB resident, {series} series, {} cases known, ledger {} kB",
                hour / 24,
                LIVE.load(Ordering::Relaxed) / 1024,
                resident(),
                store.sources()[0].cases_known(),
                size / 1024,
            );
        }
    }
}
