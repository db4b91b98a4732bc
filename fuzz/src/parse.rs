//! Any bytes as one packet: a packet that parses is rewritten, and every checksum of the result is
//! exact.

use natbox::packet::{ChecksumMode, Endpoint, Ttl, Tuple, builder, parse};

/// Parses the bytes, and rewrites them if they are a packet.
///
/// # Panics
/// If the rewrite breaks the packet, or one of its checksums that was right before.
pub fn run(data: &[u8]) {
    let Ok(parsed) = parse(data, ChecksumMode::Complete) else { return };
    assert!(parsed.length() <= data.len() && parsed.header_length() <= parsed.length());
    let Some(tuple) = parsed.tuple() else { return };
    let was_right = builder::verify(&data[..parsed.length()], ChecksumMode::Complete).is_ok();
    let to = Tuple {
        source: Endpoint::new([203, 0, 113, 10].into(), tuple.source.port.wrapping_add(1)),
        destination: tuple.destination,
        ..tuple
    };
    let mut buffer = data[..parsed.length()].to_vec();
    parsed.rewrite(&mut buffer, to, Ttl::Increment);
    let rewritten = parse(&buffer, ChecksumMode::Complete);
    let rewritten = rewritten.expect("a rewrite leaves a packet well-formed");
    assert_eq!(rewritten.source(), to.source.address);
    if was_right {
        builder::verify(&buffer, ChecksumMode::Complete).expect("every checksum is exact");
    }
}
