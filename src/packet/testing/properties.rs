//! Properties of the whole module: any bytes, any packet, any rewrite.

use crate::packet::testing::builder;
use crate::packet::{
    ChecksumMode, IcmpErrorKind, Parsed, Payload, Protocol, QueryKind, TcpFlags, Ttl, Tuple,
    icmp_error, parse,
};
use etherparse::{Icmpv4Slice, Ipv4HeaderSlice, TcpSlice, UdpSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::Ipv4Addr;

/// Any word, and often one of those at which ones' complement arithmetic goes wrong.
fn word() -> impl Strategy<Value = u16> {
    prop_oneof![prop::sample::select(vec![0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff]), any::<u16>()]
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (word(), word()).prop_map(|(high, low)| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

fn tuple() -> BoxedStrategy<Tuple> {
    (address(), word(), address(), word())
        .prop_map(|(from, port, to, other)| builder::tuple(Protocol(0), (from, port), (to, other)))
        .boxed()
}

fn query_kind() -> impl Strategy<Value = QueryKind> {
    use QueryKind::{EchoReply, EchoRequest, TimestampReply, TimestampRequest};
    prop::sample::select(vec![EchoRequest, EchoReply, TimestampRequest, TimestampReply])
}

/// Route and timestamp options of any length, pointer and flags, mixed with other options and with
/// random bytes.
fn option_list() -> BoxedStrategy<Vec<u8>> {
    let option = (
        prop::sample::select(vec![7u8, 68, 68, 130, 148]),
        any::<u8>(),
        any::<u8>(),
        vec(any::<u8>(), 0..34),
    )
        .prop_map(|(kind, pointer, flags, rest)| {
            [&[kind, 4 + rest.len() as u8, pointer, flags][..], &rest].concat()
        });
    let item = prop_oneof![4 => option, 2 => Just(vec![1]), 1 => vec(any::<u8>(), 0..6)];
    vec(item, 0..4)
        .prop_map(|items| {
            let mut list = items.concat();
            list.truncate(40);
            list
        })
        .boxed()
}

fn payload() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..80), (0..80usize).prop_map(|length| vec![0; length])].boxed()
}

/// TCP, UDP with and without checksum, UDP-Lite, DCCP, queries and other protocols, some with IP
/// options.
fn plain_packet() -> BoxedStrategy<Vec<u8>> {
    let tcp_options =
        prop_oneof![Just(vec![]), Just(vec![1, 2, 4, 5, 180, 3, 3, 9]), vec(any::<u8>(), 0..=40)];
    let packet = prop_oneof![
        (tuple(), any::<u8>(), any::<u32>(), any::<u32>(), tcp_options, payload()).prop_map(
            |(tuple, flags, sequence, acknowledgement, options, payload)| {
                builder::tcp(tuple, TcpFlags(flags), sequence, acknowledgement, &options, &payload)
            }
        ),
        (tuple(), payload()).prop_map(|(tuple, payload)| builder::udp(tuple, &payload)),
        (tuple(), payload())
            .prop_map(|(tuple, payload)| builder::udp_without_checksum(tuple, &payload)),
        (tuple(), query_kind(), word(), payload()).prop_map(|(tuple, kind, sequence, payload)| {
            let (source, destination) = (tuple.source, tuple.destination);
            builder::echo(
                source.address,
                destination.address,
                kind,
                source.port,
                sequence,
                &payload,
            )
        }),
        (tuple(), any::<prop::sample::Index>(), payload()).prop_map(
            |(tuple, coverage, payload)| {
                let coverages: Vec<usize> = [0].into_iter().chain(8..=8 + payload.len()).collect();
                builder::udp_lite(tuple, *coverage.get(&coverages) as u16, &payload)
            }
        ),
        (tuple(), any::<prop::sample::Index>(), payload()).prop_map(
            |(tuple, coverage, payload)| {
                let most = (payload.len() / 4 + 1).min(15);
                builder::dccp(tuple, coverage.index(most + 1) as u8, &payload)
            }
        ),
        (tuple(), prop::sample::select(vec![2u8, 41, 47, 50, 132, 253]), payload()).prop_map(
            |(tuple, protocol, payload)| {
                builder::other(
                    Protocol(protocol),
                    tuple.source.address,
                    tuple.destination.address,
                    &payload,
                )
            }
        ),
    ];
    let ip_options =
        prop_oneof![3 => Just(vec![]), 1 => Just(vec![148, 4, 0, 0]), 1 => Just(vec![1; 40])];
    (packet, ip_options, any::<u8>(), any::<bool>(), any::<u16>())
        .prop_map(|(mut bytes, options, ttl, dont_fragment, identification)| {
            builder::set_ttl(&mut bytes, ttl);
            builder::set_dont_fragment(&mut bytes, dont_fragment);
            builder::set_identification(&mut bytes, identification);
            builder::with_ip_options(&bytes, &options)
        })
        .boxed()
}

/// An ICMP error whose quote is cut anywhere from its IP header to its end.
fn error_packet() -> BoxedStrategy<Vec<u8>> {
    let kind = prop::sample::select(vec![3u8, 11, 12]);
    (plain_packet(), any::<prop::sample::Index>(), kind, 0..16u8, word(), address(), address())
        .prop_map(|(quoted, cut, kind, code, mtu, source, destination)| {
            let header = usize::from(quoted[0] & 15) * 4;
            let length = header + cut.index(quoted.len() - header + 1);
            let [high, low] = mtu.to_be_bytes();
            builder::icmp(source, destination, kind, code, [0, 0, high, low], &quoted[..length])
        })
        .boxed()
}

fn fragment() -> BoxedStrategy<Vec<u8>> {
    (prop_oneof![plain_packet(), error_packet()], any::<prop::sample::Index>())
        .prop_map(|(packet, which)| {
            let mut fragments = builder::fragments(&packet, 24);
            if fragments.is_empty() {
                packet
            } else {
                fragments.swap_remove(which.index(fragments.len()))
            }
        })
        .boxed()
}

fn any_packet() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![3 => plain_packet(), 2 => error_packet(), 1 => fragment()].boxed()
}

/// A packet with a few random bytes, or a truncated one. Its checksums are often corrected
/// afterwards, so that the code behind the first checks is reached.
fn damaged_packet() -> BoxedStrategy<Vec<u8>> {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let length = prop::option::of(any::<prop::sample::Index>());
    (any_packet(), damage, length, any::<bool>(), any::<bool>())
        .prop_map(|(mut bytes, damage, length, header_checksum, icmp_checksum)| {
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(length) = length {
                bytes.truncate(length.index(bytes.len()).max(20));
                let length = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
            }
            let start = usize::from(bytes[0] & 15) * 4;
            if icmp_checksum && bytes[9] == 1 && bytes.len() >= start + 8 {
                bytes[start + 2..start + 4].fill(0);
                let checksum = !builder::ones_complement_sum(&bytes[start..]);
                bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
            }
            if header_checksum {
                builder::refresh_header_checksum(&mut bytes);
            }
            bytes
        })
        .boxed()
}

/// The packet with a partial checksum if `partial`. Fragments always stay complete.
fn in_mode(mut bytes: Vec<u8>, partial: bool) -> (Vec<u8>, ChecksumMode) {
    let is_fragment = bytes[6] & 0x3f != 0 || bytes[7] != 0;
    if !partial || is_fragment {
        return (bytes, ChecksumMode::Complete);
    }
    builder::make_partial(&mut bytes);
    (bytes, ChecksumMode::Partial)
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop::sample::select(vec![Ttl::Keep, Ttl::Increment])
}

fn mode() -> impl Strategy<Value = ChecksumMode> {
    prop::sample::select(vec![ChecksumMode::Complete, ChecksumMode::Partial])
}

/// Calls every function on a packet, in an order that no engine would choose.
fn exercise(bytes: &[u8], mode: ChecksumMode, to: Tuple, number: u16) {
    let Ok(parsed) = parse(bytes, mode) else { return };
    let _ = format!("{parsed:?} {:?}", parsed.tuple());
    let mut bytes = bytes.to_vec();
    parsed.clamp_mss(&mut bytes, number);
    let _ = parsed.window_scale(&bytes);
    parsed.rewrite(&mut bytes, to, Ttl::Increment);
    parsed.strip_recorded_addresses(
        &mut bytes,
        |address| address.octets()[3] % 2 == 0,
        to.source.address,
    );
    parsed.set_identification(&mut bytes, number);
    let _ = parsed.quoted_identification(&bytes);
    parsed.set_quoted_identification(&mut bytes, number);
    parsed.rewrite_error(
        &mut bytes,
        to.source.address,
        to.destination.address,
        to.reversed(),
        Ttl::Increment,
    );
    bytes.resize(bytes.len().max(2048), 0);
    icmp_error(
        &parsed,
        &mut bytes,
        usize::from(number),
        IcmpErrorKind::FragmentationNeeded { mtu: number },
        to.source.address,
    );
    // The bytes are another packet now. The description of the old packet must still not panic.
    parsed.rewrite(&mut bytes, to, Ttl::Keep);
    parsed.clamp_mss(&mut bytes, 0);
}

/// Rewrites a packet with the function for its payload.
fn there(parsed: &Parsed, bytes: &mut [u8], to: Tuple, quoted: Tuple, ttl: Ttl) {
    match parsed.payload() {
        Payload::IcmpError(_) => {
            parsed.rewrite_error(bytes, to.source.address, to.destination.address, quoted, ttl);
        }
        Payload::Tcp(_)
        | Payload::Udp
        | Payload::IcmpQuery(_)
        | Payload::IcmpOther { .. }
        | Payload::Fragment { .. }
        | Payload::Other => parsed.rewrite(bytes, to, ttl),
    }
}

fn back(parsed: &Parsed, bytes: &mut [u8]) {
    let addresses =
        builder::tuple(parsed.protocol(), (parsed.source(), 0), (parsed.destination(), 0));
    let (to, quoted) = match parsed.payload() {
        Payload::IcmpError(error) => (addresses, error.quoted),
        Payload::Fragment { first_tuple, .. } => (first_tuple.unwrap_or(addresses), addresses),
        Payload::Tcp(_)
        | Payload::Udp
        | Payload::IcmpQuery(_)
        | Payload::IcmpOther { .. }
        | Payload::Other => (parsed.tuple().unwrap_or(addresses), addresses),
    };
    there(parsed, bytes, to, quoted, Ttl::Keep);
}

/// Replaces a checksum of `0xffff` of a quoted query by `0x0000`. If the quote is truncated and the
/// message has only zeros, the original one of the two is unknown. Both are equal for a receiver.
fn one_zero_in_quote(parsed: &Parsed, bytes: &mut [u8]) {
    let quote = parsed.header_length() + 8;
    let Payload::IcmpError(error) = parsed.payload() else { return };
    let message = quote + usize::from(bytes[quote] & 15) * 4;
    if error.quoted.protocol == Protocol::ICMP
        && bytes.get(message + 2..message + 4) == Some(&[0xff; 2])
    {
        bytes[message + 2..message + 4].fill(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), mode in mode(), to in tuple(), number: u16) {
        exercise(&bytes, mode, to, number);
    }

    #[test]
    fn no_damaged_packet_panics(bytes in damaged_packet(), mode in mode(), to in tuple(), number: u16) {
        exercise(&bytes, mode, to, number);
    }

    #[test]
    fn a_rewritten_packet_has_correct_checksums_and_the_new_tuple(
        bytes in any_packet(), to in tuple(), quoted in tuple(), partial: bool, ttl in ttl(),
    ) {
        let (mut bytes, mode) = in_mode(bytes, partial);
        builder::verify(&bytes, mode).unwrap();
        let Ok(parsed) = parse(&bytes, mode) else { return Ok(()) };
        let before = bytes.clone();
        there(&parsed, &mut bytes, to, quoted, ttl);
        if let Err(problem) = builder::verify(&bytes, mode) {
            prop_assert!(false, "{}\n{:02x?}\n{:02x?}", problem, before, bytes);
        }
        let after = parse(&bytes, mode).unwrap();
        prop_assert_eq!(after.source(), to.source.address);
        prop_assert_eq!(after.destination(), to.destination.address);
        prop_assert_eq!(after.ttl(), parsed.ttl().saturating_add(ttl as u8));
        match (after.payload(), after.tuple()) {
            (Payload::Tcp(_) | Payload::Udp, Some(tuple)) => {
                prop_assert_eq!(tuple.source, to.source);
                prop_assert_eq!(tuple.destination, to.destination);
            }
            (Payload::IcmpQuery(kind), Some(tuple)) => {
                let expected = if kind.is_request() { (to.source.port, 0) } else { (0, to.destination.port) };
                prop_assert_eq!((tuple.source.port, tuple.destination.port), expected);
            }
            (Payload::IcmpError(error), None) => {
                prop_assert_eq!(error.quoted.source.address, quoted.source.address);
                prop_assert_eq!(error.quoted.destination.address, quoted.destination.address);
            }
            _ => {}
        }
    }

    #[test]
    fn there_and_back_is_the_same_packet(
        bytes in any_packet(), to in tuple(), quoted in tuple(), partial: bool,
    ) {
        let (mut bytes, mode) = in_mode(bytes, partial);
        let Ok(parsed) = parse(&bytes, mode) else { return Ok(()) };
        let mut before = bytes.clone();
        there(&parsed, &mut bytes, to, quoted, Ttl::Keep);
        back(&parsed, &mut bytes);
        one_zero_in_quote(&parsed, &mut before);
        one_zero_in_quote(&parsed, &mut bytes);
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn only_header_fields_change(bytes in plain_packet(), to in tuple()) {
        let Ok(parsed) = parse(&bytes, ChecksumMode::Complete) else { return Ok(()) };
        let mut after = bytes.clone();
        parsed.rewrite(&mut after, to, Ttl::Increment);
        let transport = parsed.header_length();
        let may_change: &[usize] = match parsed.protocol() {
            Protocol::TCP => &[0, 1, 2, 3, 16, 17],
            Protocol::UDP => &[0, 1, 2, 3, 6, 7],
            Protocol::UDP_LITE | Protocol::DCCP => &[6, 7],
            Protocol::ICMP => &[2, 3, 4, 5],
            _ => &[],
        };
        for at in 0..bytes.len() {
            let header = at == 8 || (10..20).contains(&at);
            if !header && !may_change.iter().any(|offset| transport + offset == at) {
                prop_assert_eq!(bytes[at], after[at], "byte {}", at);
            }
        }
    }

    #[test]
    fn scrubbing_changes_only_recorded_addresses_the_identification_and_checksums(
        packet in any_packet(), list in option_list(), in_quote: bool, instead in address(), number: u16,
    ) {
        let with_list = if packet[0] == 0x45 { builder::with_ip_options(&packet, &list) } else { packet };
        let mut bytes = if in_quote {
            builder::icmp_error(3, 3, instead, instead, &with_list)
        } else {
            with_list
        };
        let Ok(parsed) = parse(&bytes, ChecksumMode::Complete) else { return Ok(()) };
        let before = bytes.clone();
        let is_private = |address: Ipv4Addr| address.octets()[0] % 2 == 1;
        parsed.strip_recorded_addresses(&mut bytes, is_private, instead);
        parsed.set_identification(&mut bytes, number);
        parsed.set_quoted_identification(&mut bytes, number);
        builder::verify(&bytes, ChecksumMode::Complete).unwrap();
        prop_assert_eq!(bytes.len(), before.len());
        prop_assert_eq!(u16::from_be_bytes([bytes[4], bytes[5]]), number);

        let header = parsed.header_length();
        let quote = if matches!(parsed.payload(), Payload::IcmpError(_)) { header + 8 } else { bytes.len() };
        let quoted_header = bytes.get(quote).map_or(0, |byte| usize::from(byte & 15) * 4);
        let mut at = 0;
        while at < bytes.len() {
            let start = if at < quote { 0 } else { quote };
            let options = [(0, header), (quote, quoted_header)]
                .iter()
                .any(|(start, length)| (start + 20..start + length).contains(&at));
            let numbers = at < start + 20 && (start == 0 || quoted_header > 0) && matches!(at - start, 4 | 5 | 10 | 11);
            let icmp_checksum = quote < bytes.len() && (header + 2..header + 4).contains(&at);
            if bytes[at] != before[at] {
                prop_assert!(options || numbers || icmp_checksum, "byte {}", at);
            }
            at += 1;
        }
    }

    #[test]
    fn etherparse_reads_the_same_fields(bytes in plain_packet()) {
        let Ok(parsed) = parse(&bytes, ChecksumMode::Complete) else { return Ok(()) };
        let header = Ipv4HeaderSlice::from_slice(&bytes).unwrap();
        let payload = &bytes[header.slice().len()..usize::from(header.total_len())];
        prop_assert_eq!(parsed.length(), usize::from(header.total_len()));
        prop_assert_eq!(parsed.header_length(), header.slice().len());
        prop_assert_eq!(parsed.protocol().0, header.protocol().0);
        prop_assert_eq!(parsed.source(), header.source_addr());
        prop_assert_eq!(parsed.destination(), header.destination_addr());
        prop_assert_eq!(parsed.ttl(), header.ttl());
        prop_assert_eq!(parsed.dont_fragment(), header.dont_fragment());
        let ports = parsed.tuple().map_or((0, 0), |tuple| (tuple.source.port, tuple.destination.port));
        match parsed.payload() {
            Payload::Tcp(tcp) => {
                let slice = TcpSlice::from_slice(payload).unwrap();
                prop_assert_eq!(ports, (slice.source_port(), slice.destination_port()));
                prop_assert_eq!(tcp.sequence, slice.sequence_number());
                prop_assert_eq!(tcp.acknowledgement, slice.acknowledgment_number());
                prop_assert_eq!(tcp.window, slice.window_size());
                prop_assert_eq!(usize::from(tcp.payload_length), slice.payload().len());
                let flags = tcp.flags;
                prop_assert_eq!(
                    (flags.fin(), flags.syn(), flags.rst(), flags.psh(), flags.ack(), flags.urg()),
                    (slice.fin(), slice.syn(), slice.rst(), slice.psh(), slice.ack(), slice.urg())
                );
            }
            Payload::Udp => {
                let slice = UdpSlice::from_slice(payload).unwrap();
                prop_assert_eq!(ports, (slice.source_port(), slice.destination_port()));
            }
            Payload::IcmpQuery(kind) => {
                // etherparse accepts a timestamp only with its three times.
                if let Ok(slice) = Icmpv4Slice::from_slice(payload) {
                    prop_assert_eq!(kind.kind(), slice.type_u8());
                    let [high, low, ..] = slice.bytes5to8();
                    prop_assert_eq!(ports.0 | ports.1, u16::from_be_bytes([high, low]));
                }
            }
            Payload::Other => prop_assert_eq!(ports, (0, 0)),
            content @ (Payload::IcmpError(_) | Payload::IcmpOther { .. } | Payload::Fragment { .. }) => {
                prop_assert!(false, "{:?}", content);
            }
        }
    }

    #[test]
    fn a_clamped_syn_has_right_checksums(bytes in plain_packet(), maximum in word(), partial: bool) {
        let (mut bytes, mode) = in_mode(bytes, partial);
        let Ok(parsed) = parse(&bytes, mode) else { return Ok(()) };
        let before = bytes.clone();
        let clamped = parsed.clamp_mss(&mut bytes, maximum);
        prop_assert_eq!(clamped, bytes != before);
        builder::verify(&bytes, mode).unwrap();
    }

    #[test]
    fn an_icmp_error_has_correct_checksums_and_quotes_the_packet(bytes in any_packet(), number: u16) {
        let Ok(parsed) = parse(&bytes, ChecksumMode::Complete) else { return Ok(()) };
        let mut buffer = bytes.clone();
        buffer.resize(2048, 0);
        let kind = IcmpErrorKind::FragmentationNeeded { mtu: number };
        let length = icmp_error(&parsed, &mut buffer, bytes.len(), kind, Ipv4Addr::new(10, 0, 0, 100));
        let Some(length) = length else { return Ok(()) };
        builder::verify(&buffer[..length], ChecksumMode::Complete).unwrap();
        prop_assert_eq!(&buffer[28..length], &bytes[..]);
    }
}

/// Compares every pair of corner words in every rewritten field, in both modes, with full
/// recomputation.
#[test]
fn corner_words_squared_in_every_field() {
    const CORNERS: [u16; 6] = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
    let address = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let tuples: Vec<Tuple> = CORNERS
        .iter()
        .flat_map(|first| CORNERS.map(|second| (*first, second)))
        .map(|(first, second)| {
            builder::tuple(
                Protocol(0),
                (address(first, second), first),
                (address(second, first), second),
            )
        })
        .collect();
    for from in &tuples {
        for to in &tuples {
            let tcp = builder::tcp(*from, TcpFlags::ACK, 0, 0, &[], &[]);
            let udp = builder::udp(*from, &[]);
            let echo = builder::echo(
                from.source.address,
                from.destination.address,
                QueryKind::EchoReply,
                from.source.port,
                0,
                &[],
            );
            let error =
                builder::icmp_error(3, 3, from.source.address, from.destination.address, &udp);
            let lite = builder::udp_lite(*from, 8, b"odd");
            let dccp = builder::dccp(*from, 1, b"odd");
            let about_lite =
                builder::icmp_error(3, 3, from.source.address, from.destination.address, &lite);
            for bytes in [tcp, udp, echo, error, lite, dccp, about_lite] {
                for mode in [ChecksumMode::Complete, ChecksumMode::Partial] {
                    let mut bytes = bytes.clone();
                    if mode == ChecksumMode::Partial {
                        builder::make_partial(&mut bytes);
                    }
                    let parsed = parse(&bytes, mode).unwrap();
                    there(&parsed, &mut bytes, *to, to.reversed(), Ttl::Increment);
                    builder::verify(&bytes, mode).unwrap();
                }
            }
        }
    }
}
