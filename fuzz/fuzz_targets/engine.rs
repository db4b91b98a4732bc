//! `fuzz/run engine`: a sequence of batches through a whole worker.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::engine::run(data));
