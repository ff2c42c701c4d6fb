//! Where bytes from outside come in, each as a function of bytes that panics if a promise is broken: what a fuzzer calls
//! (`fuzz/`), and what the tests call with bytes of their own. Never used by the daemon, and never reads anything itself.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use crate::poll::budget::{Budget, Moment, PAUSE_MAX};
use crate::poll::{self};
use crate::sources::empirical::Empirical;
use crate::sources::sample_platform::SamplePlatform;
use crate::sources::{Allowance, Branches, CaseSettings, Discovery, DurationUnit, Kind, Settings, Source};
use crate::transport::Reply;
use crate::web::{self, Format, Wanted};

/// One entrance: its name, which is the fuzz target's, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("negotiation", negotiation),
    ("authorization", authorization),
    ("web_config", web_config),
    ("rate_limit_headers", rate_limit_headers),
    ("empirical", empirical),
    ("sample_platform", sample_platform),
];

/// More requests than a round of so small a platform needs.
const REQUESTS_MAX: usize = 200;

/// A pause is lengthened by a second and by jitter.
const PAUSE_SLACK: Duration = Duration::from_secs(3);

/// `Accept` and `Accept-Encoding`, line by line in turn.
pub fn negotiation(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (line, name) in lines(data)
        .zip([ACCEPT, ACCEPT_ENCODING].into_iter().cycle())
        .take(REQUESTS_MAX)
    {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let wanted = Wanted::of(&headers);
    let says = |word: &str| {
        let mut values = headers.values().map(|value| value.as_bytes().to_ascii_lowercase());
        values.any(|value| value.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    assert!(
        !wanted.gzip || says("gzip") || says("*"),
        "nobody asked for gzip: {headers:?}"
    );
    let open_metrics = wanted.format == Format::OpenMetrics;
    assert!(
        !open_metrics || says("openmetrics"),
        "nobody asked for OpenMetrics: {headers:?}"
    );
}

/// `Authorization`.
pub fn authorization(data: &[u8]) {
    let read = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).ok()?);
        web::credentials(&headers)
    };
    let _ = read(data);
    if let Some((name, password)) = read(&[b"Basic ", data].concat()) {
        assert!(!name.contains(':'), "{name}");
        let again = [name.as_bytes(), b":", &password].concat();
        let again = read(format!("basic {}", STANDARD.encode(again)).as_bytes());
        assert_eq!(again, Some((name, password)));
    }
}

/// The text of a web configuration.
pub fn web_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for problem in web::access::Access::problems_of_text(text) {
        let shown = problem.to_string();
        assert!(!shown.is_empty() && !shown.contains("$2"), "a hash in {shown}");
    }
}

/// What a platform's headers say about its limits: `name: value`, line by line; the first line's first byte picks a status.
pub fn rate_limit_headers(data: &[u8]) {
    let statuses = [200, 403, 404, 429, 500, 503];
    let status = statuses[usize::from(data.first().copied().unwrap_or_default()) % statuses.len()];
    let mut headers = HeaderMap::new();
    for line in lines(data.get(1..).unwrap_or_default()).take(REQUESTS_MAX) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    let mut budget = Budget::new(&poll::Settings {
        interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
        requests_per_minute: 60.0,
        burst: 10,
    });
    let moment = Moment {
        monotonic: Duration::ZERO,
        wall: now(),
    };
    if let Some(pause) = budget.observe(status, &headers, moment, 0.5) {
        assert!(pause.for_ <= PAUSE_MAX + PAUSE_SLACK, "{pause:?}");
    }
    let standing = budget.pause(Duration::ZERO).map(|pause| pause.for_);
    assert!(standing.unwrap_or_default() <= PAUSE_MAX + PAUSE_SLACK, "{standing:?}");
    for told in [budget.told().limit, budget.told().remaining, budget.told().reset] {
        assert!(told.is_none_or(f64::is_finite), "{told:?}");
    }
}

/// Empirical's answers, one on each line, to whatever is asked.
pub fn empirical(data: &[u8]) {
    let settings = settings(Kind::Empirical, Discovery::RunDetails);
    converse(data, || Empirical::new(settings.clone()));
}

/// The Sample Platform's answers, one on each line, to whatever is asked.
pub fn sample_platform(data: &[u8]) {
    let settings = settings(Kind::SamplePlatform, Discovery::Runs);
    converse(data, || SamplePlatform::new(settings.clone()));
}

/// Two rounds, and a restart in between from what is remembered.
fn converse<S: Source>(data: &[u8], new: impl Fn() -> S) {
    let answers: Vec<&[u8]> = lines(data).collect();
    let mut source = new();
    for _ in 0..2 {
        let allowance = Allowance {
            requests: REQUESTS_MAX,
            rereads: REQUESTS_MAX,
        };
        source.begin(now(), allowance);
        let mut asked = 0;
        while source.next().is_some() && asked < REQUESTS_MAX {
            let reply = Reply {
                status: 200,
                headers: HeaderMap::new(),
                body: Bytes::copy_from_slice(answers[asked % answers.len()]),
            };
            asked += 1;
            let learned = source.accept(&reply);
            if let Err(rejection) = learned
                && source.reject(rejection).is_err()
            {
                break;
            }
        }
        let _ = source.progress();
        let memory = source.memory();
        source = new();
        let restored = memory.and_then(|memory| source.restore(&memory));
        assert!(restored.is_ok(), "what is remembered cannot be read again");
    }
}

fn settings(kind: Kind, discovery: Discovery) -> Settings {
    Settings {
        kind,
        lookback: Duration::from_secs(30 * 86_400),
        series_ttl: Duration::from_secs(14 * 86_400),
        branches: Branches::new(Vec::new()),
        environments: BTreeMap::new(),
        run_duration_unit: DurationUnit::Auto,
        snoozes: (kind == Kind::Empirical).then_some(Duration::from_secs(600)),
        cases: CaseSettings {
            enabled: true,
            discovery,
            ids: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            max: 1000,
            batch_size: 50,
            analytics_lag: Duration::ZERO,
        },
    }
}

/// Some day, always the same: the seeds are of that time.
fn now() -> Timestamp {
    Timestamp::new(1_795_300_000, 0).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// There is one at least.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == b'\n')
}
