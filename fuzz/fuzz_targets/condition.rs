//! A condition on instances, or an instance, through their parsers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::condition(data));
