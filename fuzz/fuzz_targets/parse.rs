//! `fuzz/run parse`: any bytes as one packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::parse::run(data));
