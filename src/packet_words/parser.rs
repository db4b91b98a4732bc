//! From words to a description.

use std::net::Ipv4Addr;
use std::str::FromStr;

use super::DescribedPacket;
use crate::nearest::advise;
use crate::packet::{Protocol, TcpFlags};

/// Why words describe no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet, column {column}: found {found}, wanted {wanted}")]
pub(crate) struct WordsError {
    /// Place of the first wrong character, counted from 1.
    pub(crate) column: usize,
    found: String,
    wanted: String,
}

/// Reads the description of a packet.
///
/// # Errors
/// See [`WordsError`].
pub(crate) fn parse(text: &str) -> Result<DescribedPacket, WordsError> {
    let words = split(text);
    let mut reader = Reader { words: &words, end: text.chars().count() + 1 };
    let protocol = reader.protocol()?;
    let source = reader.endpoint(protocol)?;
    let arrow = reader.next("`->`")?;
    if !ARROWS.contains(&arrow.text) {
        return Err(refuse(arrow, "`->`"));
    }
    let destination = reader.endpoint(protocol)?;
    let mut packet = DescribedPacket {
        protocol,
        source,
        destination,
        flags: TcpFlags(0),
        sequence: 0,
        is_reply: false,
        identifier: 1,
        length: None,
        dont_fragment: false,
        from: None,
    };
    let mut length = None;
    while let Some(word) = reader.take() {
        if word.text == "length" {
            length = reader.words.first().copied();
        }
        reader.word(word, &mut packet)?;
    }
    if packet.flags == TcpFlags(0) {
        packet.flags = TcpFlags::SYN;
    }
    match (length, packet.length) {
        (Some(word), Some(bytes)) if usize::from(bytes) < packet.headers() => {
            Err(refuse(word, &format!("at least {}, the length of the headers", packet.headers())))
        }
        _ => Ok(packet),
    }
}

/// A word with its place.
#[derive(Clone, Copy)]
struct Word<'t> {
    column: usize,
    text: &'t str,
}

/// Splits a text at blanks. The arrow needs none.
fn split(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut rest, mut column) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = match ARROWS.iter().find(|arrow| rest.starts_with(**arrow)) {
            _ if first.is_whitespace() => first.len_utf8(),
            Some(arrow) if !first.is_alphabetic() => arrow.len(),
            _ => {
                let is_end = |at: &usize| {
                    let tail = &rest[*at..];
                    tail.starts_with(char::is_whitespace) || tail.starts_with("->")
                };
                rest.char_indices().map(|(at, _)| at).find(is_end).unwrap_or(rest.len())
            }
        };
        let (word, after) = rest.split_at(length);
        if !first.is_whitespace() {
            words.push(Word { column, text: word });
        }
        column += word.chars().count();
        rest = after;
    }
    words
}

struct Reader<'w, 't> {
    words: &'w [Word<'t>],
    /// Column behind the last character.
    end: usize,
}

impl<'t> Reader<'_, 't> {
    fn take(&mut self) -> Option<Word<'t>> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(*first)
    }

    fn next(&mut self, wanted: &str) -> Result<Word<'t>, WordsError> {
        self.take().ok_or_else(|| WordsError {
            column: self.end,
            found: "the end".to_owned(),
            wanted: wanted.to_owned(),
        })
    }

    fn protocol(&mut self) -> Result<Protocol, WordsError> {
        let names = PROTOCOLS.iter().map(|(name, _)| *name);
        let word = self.next("a protocol, such as `tcp`")?;
        let number = word.text.strip_prefix("ip-").and_then(|number| number.parse().ok());
        let named = PROTOCOLS.iter().find(|(name, _)| *name == word.text);
        match (named, number) {
            (Some((_, protocol)), _) => Ok(*protocol),
            (None, Some(number)) => Ok(Protocol(number)),
            (None, None) => {
                let advice = advise(word.text, names);
                Err(refuse(word, &format!("a protocol or `ip-NUMBER`; {advice}")))
            }
        }
    }

    fn endpoint(&mut self, protocol: Protocol) -> Result<(Ipv4Addr, u16), WordsError> {
        let has_port = matches!(protocol, Protocol::TCP | Protocol::UDP);
        let wanted = if has_port { "ADDRESS:PORT" } else { "an IPv4 address without a port" };
        let word = self.next(wanted)?;
        let parsed = match has_port {
            true => word.text.split_once(':').and_then(|(address, port)| {
                Some((address.parse().ok()?, port.parse().ok().filter(|port| *port != 0)?))
            }),
            false => word.text.parse().ok().map(|address| (address, 0)),
        };
        parsed.ok_or_else(|| refuse(word, wanted))
    }

    fn number<T: FromStr>(&mut self, wanted: &str) -> Result<T, WordsError> {
        let word = self.next(wanted)?;
        word.text.parse().map_err(|_| refuse(word, wanted))
    }

    /// Reads one of the words behind the destination.
    fn word(&mut self, word: Word<'t>, packet: &mut DescribedPacket) -> Result<(), WordsError> {
        let known = words_for(packet.protocol);
        let flag = FLAGS.iter().find(|(name, _)| *name == word.text);
        match (word.text, flag) {
            (text, _) if !known.contains(&text) => {
                let advice = advise(text, known.iter().copied());
                return Err(refuse(word, &format!("a word of a packet; {advice}")));
            }
            (_, Some((_, bit))) => packet.flags = TcpFlags(packet.flags.0 | bit),
            ("seq", None) => packet.sequence = self.number("a sequence number")?,
            ("reply", None) => packet.is_reply = true,
            ("request", None) => packet.is_reply = false,
            ("id", None) => packet.identifier = self.number("an identifier up to 65535")?,
            ("length", None) => packet.length = Some(self.number("bytes up to 65535")?),
            ("df", None) => packet.dont_fragment = true,
            ("from", None) => {
                let side = self.next("`inside`, `outside` or an interface")?;
                packet.from = Some(side.text.to_owned());
            }
            (text, None) => unreachable!("{text} is one of the known words"),
        }
        Ok(())
    }
}

/// Returns the words behind the destination of a packet of this protocol.
fn words_for(protocol: Protocol) -> Vec<&'static str> {
    let own: &[&str] = match protocol {
        Protocol::TCP => &["syn", "ack", "fin", "rst", "psh", "urg", "seq"],
        Protocol::ICMP => &["request", "reply", "id"],
        _ => &[],
    };
    own.iter().chain(&["length", "df", "from"]).copied().collect()
}

fn refuse(word: Word<'_>, wanted: &str) -> WordsError {
    WordsError { column: word.column, found: format!("`{}`", word.text), wanted: wanted.to_owned() }
}

/// Signs and words between source and destination.
const ARROWS: [&str; 3] = ["->", ">", "to"];

const PROTOCOLS: [(&str, Protocol); 9] = [
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::ICMP),
    ("gre", Protocol(47)),
    ("esp", Protocol(50)),
    ("ah", Protocol(51)),
    ("sctp", Protocol(132)),
    ("dccp", Protocol::DCCP),
    ("udplite", Protocol::UDP_LITE),
];

/// The flags with their bits.
const FLAGS: [(&str, u8); 6] =
    [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20)];
