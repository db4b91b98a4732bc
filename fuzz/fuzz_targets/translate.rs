//! `cargo +nightly fuzz run translate`: a policy and a sequence of packets.
#![no_main]

#[path = "../src/translate.rs"]
mod translate;

libfuzzer_sys::fuzz_target!(|data: &[u8]| translate::run(data));
