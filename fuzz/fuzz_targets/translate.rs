//! `fuzz/run translate`: a policy and a sequence of packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::translate::run(data));
