//! `fuzz/run admin`: any bytes of a client of the admin socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::admin::run(data));
