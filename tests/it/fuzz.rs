//! What the fuzzer does for hours, for a few seconds in every test run: each entrance with its seeds, with the seeds changed, and
//! with bytes that are nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use testrun_exporter::fuzz::TARGETS;

/// Per entrance. Two thousand take about a second each.
const CASES: u32 = 1000;

/// What text and JSON break at, and what makes numbers large.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"\xff",
    b"\0",
    b"\xe2\x80\xae",
    b"9999-12-31T23:59:59Z",
    b"\n",
    b";q=",
    b"=",
    b" ",
];

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = fuzz_directory().join("seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_entrance_is_a_target_of_the_fuzzer_and_has_seeds() {
    let entrances: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz_directory().join("fuzz_targets")), entrances);
    assert_eq!(names(&fuzz_directory().join("seeds")), entrances);
    let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).unwrap();
    for name in entrances {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
        assert!(!seeds(&name).is_empty(), "{name} has no seeds");
    }
}

/// One change: where (a part of the whole), how much is taken away, and what is put there.
type Change = (f64, usize, usize, u8);

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (place, gone, piece, byte) in changes {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "any place will do"
        )]
        let place = (bytes.len() as f64 * place) as usize;
        let end = (place + gone).min(bytes.len());
        let put = PIECES.get(*piece).map_or_else(|| vec![*byte], |piece| piece.to_vec());
        bytes.splice(place.min(end)..end, put);
    }
    bytes
}

#[test]
fn no_entrance_breaks_its_promises_whatever_comes() {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    for (name, entrance) in TARGETS {
        let seeds = seeds(name);
        for seed in &seeds {
            entrance(seed);
        }
        let mut runner = TestRunner::new(config.clone());
        let change = (0.0..1.0, 0..20_usize, 0..PIECES.len() * 2, any::<u8>());
        let strategy = (0..seeds.len(), vec(change, 0..8), vec(any::<u8>(), 0..64));
        let result = runner.run(&strategy, |(seed, changes, nothing)| {
            entrance(&changed(&seeds[seed], &changes));
            entrance(&nothing);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{name}: {error}");
        }
    }
}
