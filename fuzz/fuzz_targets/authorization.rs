//! What it must hold is in `testrun_exporter::fuzz::authorization`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testrun_exporter::fuzz::authorization(data));
