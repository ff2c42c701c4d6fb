//! Tells the program which compiler built it, for `--version` and the build's info metric. Runs nothing else: the revision
//! comes from the build's environment, because an image is built without a repository.

use std::env::var_os;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TESTRUN_EXPORTER_REVISION");
    let Some(compiler) = var_os("RUSTC") else { return };
    let output = Command::new(compiler).arg("--version").output();
    let text = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    if let Some(version) = text.split_whitespace().nth(1) {
        println!("cargo::rustc-env=TESTRUN_EXPORTER_RUSTC_VERSION={version}");
    }
}
