//! `fuzz/run virtio`: any virtio header before a packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| natbox_fuzz::virtio::run(data));
