//! A file of an export, through the reader of `import`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::import(data));
