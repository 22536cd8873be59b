//! A request, through the production router.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::request(data));
