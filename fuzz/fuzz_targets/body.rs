//! A body, compared with the oracle.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::body(data));
