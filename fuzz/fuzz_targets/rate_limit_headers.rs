//! What it must hold is in `testrun_exporter::fuzz::rate_limit_headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testrun_exporter::fuzz::rate_limit_headers(data));
