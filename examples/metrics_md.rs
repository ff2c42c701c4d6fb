//! Prints METRICS.md: `cargo run --example metrics_md > METRICS.md`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(testrun_exporter::metrics::catalog::markdown().as_bytes())
}
