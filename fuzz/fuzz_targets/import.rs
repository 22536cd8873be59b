//! A file of an export.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::import(data));
