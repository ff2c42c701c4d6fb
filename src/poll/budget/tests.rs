use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const WALL: i64 = 1_795_310_000;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    lines.iter().map(pair).collect()
}

fn gate(requests_per_minute: f64, burst: u32) -> Budget {
    let interval = Duration::from_secs(60);
    Budget::new(&Settings {
        interval,
        stale_after: interval,
        requests_per_minute,
        burst,
    })
}

fn observe(status: u16, lines: &[(&str, &str)]) -> Option<Pause> {
    let now = Moment {
        monotonic: Duration::ZERO,
        wall: Timestamp::from_second(WALL).unwrap(),
    };
    gate(60.0, 1).observe(status, &headers(lines), now, 0.0)
}

/// Whole seconds of the pause that a reply asks for, without jitter.
fn check(status: u16, lines: &[(&str, &str)], expected: Option<u64>) {
    assert_eq!(
        observe(status, lines).map(|pause| pause.for_),
        expected.map(Duration::from_secs),
        "{status} {lines:?}"
    );
}

#[test]
fn retry_after_is_obeyed_on_any_status_plus_the_second_that_servers_cut_off() {
    for status in [200, 202, 301, 403, 429, 503] {
        check(status, &[("retry-after", "54")], Some(55));
    }
    check(429, &[("retry-after", "0")], Some(1));
    check(
        429,
        &[("retry-after", "5"), ("retry-after", "20"), ("retry-after", "7")],
        Some(21),
    );
}

#[test]
fn a_wait_that_cannot_be_read_is_a_minute_and_an_absurd_one_an_hour() {
    for garbage in [
        "",
        "-5",
        "+5",
        "1.5",
        "soon",
        "1e3",
        "5, 6",
        "5 s",
        "\u{e9}",
        "Sun, 99 Nov 2026 01:21:39 GMT",
    ] {
        check(200, &[("retry-after", garbage)], Some(61));
    }
    check(429, &[], Some(61));
    check(429, &[("retry-after", "1000000")], Some(3601));
    check(429, &[("retry-after", "99999999999999999999999999999999")], Some(3601));
}

#[test]
fn a_date_is_measured_against_the_replys_own_date() {
    let date = ("date", "Sun, 22 Nov 2026 01:21:39 GMT");
    check(503, &[date, ("retry-after", "Sun, 22 Nov 2026 01:22:09 GMT")], Some(31));
    check(
        503,
        &[date, ("retry-after", "Sunday, 22-Nov-26 01:22:09 GMT")],
        Some(31),
    );
    check(503, &[date, ("retry-after", "Sun, 22 Nov 2026 01:20:00 GMT")], Some(1));
    let at = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(WALL as u64 + 10));
    check(503, &[("retry-after", &at)], Some(11));
    check(503, &[("date", "nonsense"), ("retry-after", &at)], Some(11));
}

#[test]
fn nothing_remaining_stops_until_the_reset_in_whatever_form_it_is_told() {
    let remaining = ("x-ratelimit-remaining", "0");
    let reset = |value: i64| value.to_string();
    check(200, &[remaining, ("x-ratelimit-reset", &reset(WALL + 50))], Some(51));
    check(
        200,
        &[remaining, ("x-ratelimit-reset", &reset((WALL + 50) * 1000))],
        Some(51),
    );
    check(200, &[remaining, ("x-ratelimit-reset", "50")], Some(51));
    check(
        200,
        &[remaining, ("x-ratelimit-reset", &reset(WALL + 900_000))],
        Some(3601),
    );
    check(
        200,
        &[remaining, ("x-ratelimit-reset", "99999999999999999999")],
        Some(3601),
    );
    check(
        200,
        &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", &reset(WALL + 50))],
        None,
    );
    check(200, &[("ratelimit-remaining", "0"), ("ratelimit-reset", "7")], Some(8));
    check(
        429,
        &[
            remaining,
            ("x-ratelimit-reset", &reset(WALL + 50)),
            ("retry-after", "3"),
        ],
        Some(4),
    );
    check(
        429,
        &[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", &reset(WALL + 50))],
        Some(51),
    );
}

#[test]
fn a_reset_in_the_past_stops_nothing_but_a_refusal_waits_a_minute() {
    let past = (WALL - 320).to_string();
    let stale = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", past.as_str())];
    check(200, &stale, None);
    check(500, &stale, None);
    check(429, &stale, Some(61));
}

#[test]
fn the_ietf_field_is_read_as_a_list_and_ignored_whole_if_malformed() {
    check(200, &[("ratelimit", r#""permin";r=0;t=30"#)], Some(31));
    check(
        200,
        &[("ratelimit", r#""day";r=100;t=5000, "a,b;c";r=0;t=30;pk=:YQ==:"#)],
        Some(31),
    );
    check(200, &[("ratelimit", r#""a";r=0;t=30, "b";r=0;t=90"#)], Some(91));
    check(200, &[("ratelimit", r#""permin";r=50;t=30"#)], None);
    for malformed in [
        r#""a";r=0;t=30, "b""#,
        r#""a;r=0;t=30"#,
        r#""a";r=-1;t=30"#,
        r#""a";r=0;t=x"#,
        ";r=0;t=3",
        ",",
        "",
    ] {
        check(200, &[("ratelimit", malformed)], None);
    }
}

#[test]
fn a_later_shorter_word_never_shortens_a_pause() {
    let mut gate = gate(60.0, 10);
    let wall = Timestamp::from_second(WALL).unwrap();
    let mut hear = |second: u64, lines: &[(&str, &str)]| {
        let now = Moment {
            monotonic: Duration::from_secs(second),
            wall,
        };
        gate.observe(200, &headers(lines), now, 0.0);
        gate.pause(now.monotonic).map(|pause| pause.for_.as_secs())
    };
    assert_eq!(hear(0, &[("retry-after", "100")]), Some(101));
    assert_eq!(hear(1, &[("retry-after", "1")]), Some(100));
    assert_eq!(hear(2, &[("x-ratelimit-remaining", "100")]), Some(99));
    assert_eq!(hear(3, &[("retry-after", "200")]), Some(201));
}

#[test]
fn waiting_out_a_pause_costs_no_permit() {
    let mut gate = gate(1.0, 1);
    let wall = Timestamp::from_second(WALL).unwrap();
    gate.observe(
        200,
        &headers(&[("retry-after", "9")]),
        Moment {
            monotonic: Duration::ZERO,
            wall,
        },
        0.0,
    );
    let wait = Admission::Wait {
        for_: Duration::from_secs(10),
        reason: Reason::RetryAfter,
    };
    assert_eq!((gate.admit(Duration::ZERO), gate.admit(Duration::ZERO)), (wait, wait));
    assert_eq!(gate.admit(Duration::from_secs(10)), Admission::Go);
    assert!(matches!(
        gate.admit(Duration::from_secs(10)),
        Admission::Wait {
            reason: Reason::Budget,
            ..
        }
    ));
}

#[test]
fn the_pace_is_kept_exactly_also_for_fractions_and_absurd_numbers() {
    let check = |rpm: f64, burst: u32, wait: u64| {
        let mut gate = gate(rpm, burst);
        for _ in 0..burst.max(1) {
            assert_eq!(gate.admit(Duration::ZERO), Admission::Go);
        }
        let expected = Admission::Wait {
            for_: Duration::from_secs(wait),
            reason: Reason::Budget,
        };
        assert_eq!(gate.admit(Duration::ZERO), expected, "{rpm} {burst}");
        assert_eq!(gate.admit(Duration::from_secs(wait)), Admission::Go);
    };
    check(60.0, 10, 1);
    check(6.0, 1, 10);
    check(0.2, 1, 300);
    check(0.0, 0, 86_400);
    check(f64::NAN, 1, 86_400);
    gate(f64::INFINITY, u32::MAX).admit(Duration::MAX);
    gate(f64::MIN_POSITIVE, u32::MAX).admit(Duration::MAX);
}

#[test]
fn what_was_told_is_absent_until_told_and_not_taken_from_a_failing_application() {
    let mut gate = gate(60.0, 1);
    let now = Moment {
        monotonic: Duration::ZERO,
        wall: Timestamp::from_second(WALL).unwrap(),
    };
    assert_eq!(gate.told(), Told::default());
    gate.observe(
        500,
        &headers(&[("x-ratelimit-limit", "5"), ("x-ratelimit-remaining", "4")]),
        now,
        0.0,
    );
    assert_eq!(gate.told(), Told::default());
    gate.observe(
        200,
        &headers(&[("x-ratelimit-limit", "120"), ("x-ratelimit-remaining", "119")]),
        now,
        0.0,
    );
    assert_eq!(
        gate.told(),
        Told {
            limit: Some(120.0),
            remaining: Some(119.0),
            reset: None
        }
    );
}

proptest! {
    #[test]
    fn no_header_panics_or_stops_a_source_for_longer_than_the_bound(
        status in 100_u16..600,
        lines in prop::collection::vec((0_usize..9, "[ -~]{0,40}|[0-9]{1,25}|\"[a-z]*\"(;[rt]=[0-9]{1,22}){0,3}"), 0..6),
        jitter in 0.0..1.0_f64,
        monotonic in 0_u64..1_000_000,
    ) {
        const NAMES: [&str; 9] = ["retry-after", "date", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining",
            "x-ratelimit-reset", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
        let lines: Vec<_> = lines.iter().map(|(name, value)| (NAMES[*name], value.as_str())).collect();
        let mut gate = gate(60.0, 1);
        let now = Moment { monotonic: Duration::from_secs(monotonic), wall: Timestamp::from_second(WALL).unwrap() };
        if let Some(pause) = gate.observe(status, &headers(&lines), now, jitter) {
            prop_assert!(pause.for_ >= Duration::from_secs(1));
            prop_assert!(pause.for_ <= PAUSE_MAX + SECOND_CUT_OFF + JITTER_MAX);
            let waits = matches!(gate.admit(now.monotonic), Admission::Wait { .. });
            prop_assert!(waits);
        } else {
            prop_assert!(status != 429, "a refusal always stops");
        }
    }
}

proptest! {
    #[test]
    fn as_many_leave_at_once_as_the_gate_says(
        rpm in prop::sample::select(vec![0.01, 0.2, 7.0, 60.0, 6000.0]),
        burst in 1_u32..20,
        steps in prop::collection::vec((0_u64..400_000, 0_usize..6), 0..20),
    ) {
        let mut budget = gate(rpm, burst);
        let mut now = Duration::ZERO;
        for (millis, requests) in steps {
            now += Duration::from_millis(millis);
            for _ in 0..requests {
                budget.admit(now);
            }
        }
        let told = budget.at_once(now);
        let left = std::iter::repeat_with(|| budget.admit(now)).take_while(|admission| *admission == Admission::Go);
        prop_assert_eq!(left.count(), told as usize);
    }
}

/// The tenth, as it is taken by rounds of every length.
#[test]
fn re_reads_take_at_most_a_tenth_of_any_hour_and_a_fair_part_of_it() {
    for (requests_per_minute, interval) in [
        (6.0, 60),
        (60.0, 60),
        (60.0, 3_600),
        (100.0, 7),
        (6_000.0, 1),
        (1.0, 300),
        (0.2, 60),
        (0.01, 86_400),
    ] {
        let settings = Settings {
            interval: Duration::from_secs(interval),
            stale_after: Duration::from_secs(900),
            requests_per_minute,
            burst: 10,
        };
        let mut tenth = Tenth::new(&settings);
        let span = 3_600.0_f64.max(20.0 * 60.0 / requests_per_minute);
        let in_a_span = requests_per_minute / 60.0 * span / 10.0;
        let mut taken: Vec<(f64, usize)> = Vec::new();
        let mut now = 0.0;
        while now < 20.0 * span {
            taken.push((now, tenth.take(Duration::from_secs_f64(now))));
            now += interval as f64;
        }
        let mut busiest = 0;
        let (mut from, mut sum) = (0, 0);
        for (at, count) in &taken {
            sum += count;
            while taken[from].0 <= at - span {
                sum -= taken[from].1;
                from += 1;
            }
            busiest = busiest.max(sum);
        }
        assert!(
            busiest as f64 <= in_a_span,
            "{requests_per_minute} a minute: {busiest} of {in_a_span}"
        );
        let all: usize = taken.iter().map(|(_, count)| count).sum();
        assert!(
            all as f64 >= 20.0 * in_a_span * 0.3,
            "{requests_per_minute} a minute, rounds of {interval} s: {all} of {}",
            20.0 * in_a_span
        );
    }
}
