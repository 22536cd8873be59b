//! A body, against a slow reading of what the contract says about it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::body(data));
