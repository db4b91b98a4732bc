//! Any bytes as a message to the name server: each answer is a whole message that belongs to its
//! query, and is no longer than the transport allows.

use natbox::fuzzing::{QueryTransport, answer_query};

use super::input::{Input, damage};

/// Asks the name server.
///
/// # Panics
/// If an answer is no answer to its query, is cut off, or is too long.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let transport = input.pick(&[
        QueryTransport::Udp,
        QueryTransport::UdpAboveRate,
        QueryTransport::Tcp,
        QueryTransport::Udp,
    ]);
    let up = input.byte();
    let message = message(&mut input);
    let answer = answer_query(&message, transport, up);
    let is_query = message.len() >= HEADER && message[2] & 0x80 == 0;
    assert!(is_query || answer.is_none(), "an answer to an answer, or to no message");
    let Some(answer) = answer else { return };
    assert_eq!(answer[..2], message[..2], "the identifier of the query");
    assert_eq!(answer[2] & 0xf8, message[2] & 0x78 | 0x80, "the operation of the query");
    assert_eq!(read_through(&answer), Some(answer.len()), "{answer:?} is no whole message");
    if transport != QueryTransport::Tcp {
        let most = (6 * message.len()).min(MAX_DATAGRAM);
        assert!(answer.len() <= most, "{} bytes answer {}", answer.len(), message.len());
    }
    let counts = counts(&answer);
    if transport == QueryTransport::UdpAboveRate {
        assert_eq!(counts[1..3], [0, 0], "the query alone goes back");
    }
    if up & 7 == 0 && counts[1] > 0 {
        assert_eq!(answer[3] & 15, 0, "records come with an error");
    }
}

/// Makes a message: a query that is right or damaged, or any bytes.
fn message(input: &mut Input<'_>) -> Vec<u8> {
    if input.once_in(8) {
        return input.rest().to_vec();
    }
    let flags = if input.once_in(4) { input.number() } else { 0x0100 };
    let queries = if input.once_in(8) { input.number() % 4 } else { 1 };
    let (edns, signature) = (input.once_in(2), input.once_in(4));
    let other = if input.once_in(16) { [input.byte(), input.byte()] } else { [0, 0] };
    let additional = u8::from(edns) + u8::from(signature);
    let mut message = input.number().to_be_bytes().to_vec();
    message.extend(flags.to_be_bytes());
    message.extend([0, queries as u8, 0, other[0], 0, other[1], 0, additional]);
    for _ in 0..queries {
        name(input, &mut message);
        let kind = input.pick(&[1u16, 2, 6, 28, 255, 5, 15, 16, 250, 252, 41, 33]);
        message.extend(kind.to_be_bytes());
        message.extend(input.pick(&[1u16, 1, 1, 3, 255]).to_be_bytes());
    }
    if edns {
        let [high, low] = input.pick(&[1232u16, 512, 0, 65_535, 100]).to_be_bytes();
        let version = if input.once_in(8) { input.byte() } else { 0 };
        message.extend([0, 0, 41, high, low, 0, version, input.byte() & 0x80, 0]);
        let options = input.below(16);
        let options = input.bytes(options);
        message.extend([0, options.len() as u8]);
        message.extend(options);
    }
    if signature {
        message.extend(
            b"\x01k\0\0\xfa\0\xff\0\0\0\0\0\x3d\x0bhmac-sha256\0\0\0\x6b\x49\xd2\0\x01\x2c\0\x20",
        );
        message.extend([input.byte(); 32]);
        message.extend([0, 0, 0, 0, 0, 0]);
    }
    if input.once_in(3) {
        damage(&mut message, input);
    }
    message
}

/// Adds a name: one of the zone in any case, one below or beside it, or one that no label can have.
fn name(input: &mut Input<'_>, message: &mut Vec<u8>) {
    let known: [&[&[u8]]; 8] = [
        &[b"www", b"example", b"org"],
        &[b"example", b"org"],
        &[b"a", b"b", b"example", b"org"],
        &[b"b", b"example", b"org"],
        &[b"ns1", b"example", b"org"],
        &[b"org"],
        &[],
        &[b"x", b"www", b"example", b"org"],
    ];
    let case = input.byte();
    for label in input.pick(&known) {
        message.push(label.len() as u8);
        message.extend(label.iter().enumerate().map(|(at, letter)| {
            if case >> (at % 8) & 1 == 1 { letter.to_ascii_uppercase() } else { *letter }
        }));
    }
    match input.below(16) {
        // A pointer to the header, to this name, or anywhere.
        0 => {
            let anywhere = input.byte();
            message.extend([0xc0, input.pick(&[0, 12, 13, anywhere])]);
        }
        1 => {
            for _ in 0..input.below(5) {
                message.push(63);
                message.extend([input.byte(); 63]);
            }
            message.push(0);
        }
        _ => message.push(0),
    }
}

/// Returns the numbers of queries and of records in each section.
fn counts(message: &[u8]) -> [u16; 4] {
    [4, 6, 8, 10].map(|at| u16::from_be_bytes([message[at], message[at + 1]]))
}

/// Reads a message as RFC 1035 lays it out. Returns the place of its end; None: it has no end.
fn read_through(message: &[u8]) -> Option<usize> {
    message.get(..HEADER)?;
    let mut at = HEADER;
    for (section, count) in counts(message).into_iter().enumerate() {
        for _ in 0..count {
            at = end_of_name(message, at)?;
            if section == 0 {
                at += 4;
            } else {
                let length = message.get(at + 8..at + 10)?;
                at += 10 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
    (at <= message.len()).then_some(at)
}

fn end_of_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            64..192 => return None,
        }
    }
}

/// Bytes of a header.
const HEADER: usize = 12;
/// Most bytes of a datagram from the name server.
const MAX_DATAGRAM: usize = 1232;
