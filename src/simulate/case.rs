//! The cases of a world: their texts, which are as awkward as real ones, and their character.

use super::dice::{Dice, Stream, mix};
use crate::sources::Kind;

/// How a case usually goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Character {
    Stable,
    Flaky(f64),
    /// Fails in one environment, or in all.
    Broken(Option<usize>),
    /// Passes until the run of this index (counted from 0 over the whole history), fails from then on.
    Regressing(usize),
    /// Leaves no output (Sample Platform); fails (Empirical).
    Outputless,
    Skipping(f64),
}

/// A case: a Playwright test or a regression test.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Playwright's test id, or the regression test's number.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) file: String,
    /// Describe titles, or categories.
    pub(super) suites: Vec<String>,
    /// Playwright project.
    pub(super) project: &'static str,
    /// The sample (from 1) that a regression test reads.
    pub(super) sample: u64,
    pub(super) character: Character,
    /// Its usual duration in milliseconds.
    pub(super) duration: i64,
    /// Tags, in the order in which somebody has written them (Empirical).
    pub(super) tags: &'static [&'static str],
}

const AREAS: &[&str] = &[
    "checkout", "cart", "login", "search", "profile", "orders", "payments", "admin",
];
const ACTIONS: &[&str] = &[
    "opens",
    "saves",
    "rejects an empty form",
    "keeps its state",
    "loads in time",
    "shows totals",
];
/// Texts that break careless escaping: quotes, backslashes, line breaks, other scripts.
const AWKWARD: &[&str] = &[
    "shows \"quoted\" text",
    "path C:\\temp\\x",
    "first line\nsecond line",
    "Übertragung – ноябрь 录像 ✓",
];
const CATEGORIES: &[&str] = &["DVB", "Teletext", "CEA-708", "Hardsubx", "XDS", "General"];
const FORMATS: &[&str] = &["srt", "sami", "ttxt", "webvtt"];
const EXTENSIONS: &[&str] = &["mpg", "mp4", "wtv", "vob", "mkv", "ts"];

/// All cases of a world. `runs_before` places the moments from which some of them regress.
pub(super) fn cases(kind: Kind, seed: u64, count: usize, environments: usize, runs_before: usize) -> Vec<Case> {
    (0..count)
        .map(|index| {
            let mut dice = Dice::new(seed, Stream::Case, index as u64);
            let character = character(&mut dice, environments, runs_before);
            let duration = dice.between(150, 20_000);
            match kind {
                Kind::Empirical => playwright(seed, index, character, duration, &mut dice),
                Kind::SamplePlatform => regression(index, character, duration, &mut dice),
            }
        })
        .collect()
}

fn character(dice: &mut Dice, environments: usize, runs_before: usize) -> Character {
    match dice.between(0, 100) {
        0..=75 => Character::Stable,
        76..=84 => Character::Flaky(dice.fraction(0.05, 0.5)),
        85..=88 => Character::Broken(dice.chance(0.5).then(|| dice.index(environments))),
        89..=93 => Character::Regressing(runs_before + dice.index(60)),
        94..=96 => Character::Outputless,
        _ => Character::Skipping(dice.fraction(0.2, 1.0)),
    }
}

/// The tags of a showcase, of one case after the other.
const TAGS: &[&[&str]] = &[
    &["smoke", "critical"],
    &[],
    &["slow"],
    &["smoke"],
    &["regression", "slow"],
];

/// Makes sure that there is something to see soon: a case that regresses with one of the first runs, two that flip, and tags.
pub(super) fn showcase(cases: &mut [Case], runs_before: usize) {
    let shown = [
        Character::Regressing(runs_before + 2),
        Character::Flaky(0.5),
        Character::Stable,
        Character::Flaky(0.4),
    ];
    for (case, character) in cases.iter_mut().zip(shown) {
        case.character = character;
    }
    for (case, tags) in cases.iter_mut().zip(TAGS.iter().cycle()) {
        case.tags = tags;
    }
}

fn playwright(seed: u64, index: usize, character: Character, duration: i64, dice: &mut Dice) -> Case {
    let area = AREAS[index % AREAS.len()];
    let action = ACTIONS[dice.index(ACTIONS.len())];
    let name = match index % 10 {
        7 => AWKWARD[(index / 10) % AWKWARD.len()].to_owned(),
        _ => format!("{area} {action} ({index})"),
    };
    let (file, test) = (
        mix(seed ^ (index % AREAS.len()) as u64),
        mix(seed ^ mix(index as u64 + 1)),
    );
    Case {
        id: format!(
            "{:016x}{:04x}-{:016x}{:04x}",
            mix(file),
            file & 0xffff,
            mix(test),
            index & 0xffff
        ),
        name,
        file: format!("{area}.spec.ts"),
        suites: if index.is_multiple_of(3) {
            vec![format!("{area} page")]
        } else {
            vec![]
        },
        project: if index.is_multiple_of(5) { "webkit" } else { "chromium" },
        sample: 0,
        character,
        duration,
        tags: &[],
    }
}

fn regression(index: usize, character: Character, duration: i64, dice: &mut Dice) -> Case {
    // Three tests read two samples, so that some samples have several.
    let sample = (index * 2 / 3 + 1) as u64;
    let format = FORMATS[dice.index(FORMATS.len())];
    let suites = [
        CATEGORIES[index % CATEGORIES.len()],
        CATEGORIES[dice.index(CATEGORIES.len())],
    ];
    let suites = if suites[0] == suites[1] {
        &suites[..1]
    } else {
        &suites[..]
    };
    Case {
        id: (index + 1).to_string(),
        name: format!("--autoprogram --out={format} --latin1"),
        file: sample_name(sample),
        suites: suites.iter().map(|name| (*name).to_owned()).collect(),
        project: "",
        sample,
        character,
        duration,
        tags: &[],
    }
}

/// A sample's original name: free text, and not always unique.
pub(super) fn sample_name(sample: u64) -> String {
    match sample % 12 {
        4 => "quote\"inside\\and backslash.ts".to_owned(),
        5 => "Übertragung – ноябрь 录像.ts".to_owned(),
        6 => "line\nbreak.mpg".to_owned(),
        _ => format!("sample_{sample:02}.{}", extension(sample)),
    }
}

/// A sample's extension.
pub(super) fn extension(sample: u64) -> &'static str {
    EXTENSIONS[usize::try_from(sample).unwrap_or(0) % EXTENSIONS.len()]
}
