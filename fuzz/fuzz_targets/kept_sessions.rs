//! `fuzz/run kept_sessions`: any bytes in the files of sessions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::kept_sessions::run(data));
