//! `fuzz/run icmp_errors`: ICMP errors about packets of live sessions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::icmp_errors::run(data));
