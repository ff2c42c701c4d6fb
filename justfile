# What people and CI type. `just` is a convenience: every recipe is one line that works without it.

# Everything that CI checks, on a Debian machine.
ci:
    .ci/run

# The tests that need nothing but Rust.
test:
    cargo test

# Real Prometheus servers on the simulated platforms.
test-prometheus directory="target/prometheus-3":
    tests/scripts/install-prometheus.sh {{directory}} && TESTRUN_PROMETHEUS_DIRS={{directory}} cargo test --test it -- prometheus:: web_config:: --ignored

# What a reviewer would say first.
lint:
    cargo fmt --all --check && cargo clippy --all-targets --locked -- -D warnings

# The exporter on simulated platforms.
demo:
    cargo run --release -- demo

# METRICS.md from the catalog.
metrics:
    cargo run --example metrics_md > METRICS.md

# The documentation of the code, private items included.
doc:
    RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --no-deps --document-private-items
