//! The memory that 100 000 series take, the store's and the page's, before and while 40 scrapers are served, every one in its
//! way and without a pause, and one run's 1 % of the cases change every second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use testrun_exporter::health::{self, WINDOW_MAX};
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::ends::Ends;
use testrun_exporter::metrics::render::Renderer;
use testrun_exporter::model::{
    ActiveState, CaseOutcome, CaseResult, ErrorCode, Fact, Group, Name, RoundResult, Run, RunOutcome, Update,
};
use testrun_exporter::store::{Limits, SourceSpec, Store};

use super::{CASES, CLIENT, ONE_RUN, View, Way, dice, own, serve_ours};

/// By way: together forty. Slow ones hold on to what was shown long ago.
const SCRAPERS: [usize; Way::ALL.len()] = [14, 14, 6, 6];
const DURING: Duration = Duration::from_secs(30);

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + second as i64).unwrap()
}

/// A run and its results: of a hundred cases one fails, and four do now and then.
fn round(number: u64, names: &[Name], cases: std::ops::Range<usize>) -> Vec<Fact> {
    let ended = at(number * 60);
    let run = Run {
        id: number,
        group: Group {
            environment: "staging".into(),
            branch: "main".into(),
        },
        outcome: RunOutcome::Failed,
        error_code: None,
        created: Some(ended),
        started: Some(ended),
        ended: Some(ended),
        duration_seconds: Some(60.0),
        counts: Default::default(),
        commit: Some(format!("{:040x}", number / 2).into()),
        build_url: Some(format!("https://github.com/example/shop/actions/runs/{number}").into()),
    };
    let result = |place: usize| CaseResult {
        run: number,
        case: names[place].clone(),
        outcome: match place % 100 {
            0 if number > 45 => CaseOutcome::Failed,
            1..5 if (place as u64 + number).is_multiple_of(20) => CaseOutcome::Flaky,
            _ => CaseOutcome::Passed,
        },
        executed: Some(ended),
        duration_seconds: Some(1.234 + number as f64),
        retries: Some(0),
        failure_signature: None,
    };
    std::iter::once(Fact::Run(run))
        .chain(cases.map(|place| Fact::Result(result(place))))
        .collect()
}

fn store() -> Store {
    let day = Duration::from_secs(86_400);
    let spec = SourceSpec {
        created_timestamps: false,
        name: "shop".into(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: CASES,
            retention: 93 * day,
            series_ttl: 14 * day,
        },
        promotion: None,
        health: health::Settings::default(),
    };
    Store::new(vec![spec], 1_000_000)
}

fn resident_megabytes() -> f64 {
    let status = procfs::process::Process::myself().unwrap().status().unwrap();
    status.vmrss.unwrap() as f64 / 1024.0
}

pub(super) async fn measure() {
    let before = resident_megabytes();
    let mut dice = dice(1);
    let names: Vec<Name> = (0..CASES)
        .map(|_| format!("{:016x}{:016x}", dice(), dice()).into())
        .collect();
    let mut store = store();
    let mut renderer = Renderer::default();
    let view = Arc::new(View {
        rendered: ArcSwap::from_pointee(renderer.render(&store.newest())),
        ends: Ends::new(own()),
    });
    let mut publish = move |number: u64, cases| {
        let ended = |result| Update::RoundEnded {
            result,
            at: at(number * 60),
        };
        if number > 1 {
            store.update(0, Update::Facts(round(number, &names, cases)), at(number * 60), number);
        }
        let shown = store
            .update(0, ended(RoundResult::Success), at(number * 60), number)
            .unwrap();
        renderer.render_for(&shown, &[Format::Text])
    };
    let mut number = 0;
    while number <= 2 * WINDOW_MAX as u64 {
        number += 1;
        view.rendered.store(Arc::new(publish(number, 0..CASES)));
    }
    let series: u64 = view.rendered.load().series.iter().map(|(_, count)| count).sum();
    println!(
        "resident memory: {before:.0} MB in the beginning, {:.0} MB with {series} series",
        resident_megabytes()
    );
    let address = serve_ours(Arc::clone(&view)).await;
    let mut most = 0.0_f64;
    let clients: Vec<_> = Way::ALL
        .into_iter()
        .zip(SCRAPERS)
        .map(|((way, _), count)| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args([CLIENT, &address.to_string(), &count.to_string()])
                .args([&DURING.as_millis().to_string(), way])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let publisher = tokio::task::spawn_blocking({
        let view = Arc::clone(&view);
        move || {
            let since = Instant::now();
            while since.elapsed() < DURING {
                std::thread::sleep(Duration::from_secs(1));
                number += 1;
                let start = number as usize * ONE_RUN % (CASES - ONE_RUN);
                view.rendered.store(Arc::new(publish(number, start..start + ONE_RUN)));
            }
        }
    });
    while !publisher.is_finished() {
        most = most.max(resident_megabytes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publisher.await.unwrap();
    for ((way, _), (count, client)) in Way::ALL.into_iter().zip(SCRAPERS.into_iter().zip(clients)) {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success());
        let scrapes = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        println!("                 {count} scrapers, {way}: {scrapes} scrapes");
    }
    println!(
        "                 {:.1} MB at most while 40 scrape and 1 % changes every second, {:.1} MB after",
        most,
        resident_megabytes()
    );
}
