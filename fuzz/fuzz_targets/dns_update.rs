//! `fuzz/run dns_update`: any answer of another name server to an update.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::dns_update::run(data));
