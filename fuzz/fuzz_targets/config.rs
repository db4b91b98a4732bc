//! `fuzz/run config`: any text as a configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::config::run(data));
