//! `fuzz/run fragments`: fragments of datagrams in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::fragments::run(data));
