//! `fuzz/run dns`: any bytes as a message to the name server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::dns::run(data));
