#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_stream_operators::fuzzing::run("capture_file", bytes));
