//! Messages to nftables (linux/netfilter/nf_tables.h), all in one batch: the kernel makes every
//! change of a batch, or none.
//!
//! Numbers of attributes are big-endian, and those of message headers have the byte order of the
//! machine.

use std::net::Ipv4Addr;

use crate::host::model::private_filter::AddressRange;

/// `NFPROTO_NETDEV`: the family of hooks of devices.
const NETDEV: u8 = 5;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// Length of `nlmsghdr`, in bytes.
pub(super) const HEADER: usize = 16;

/// Flags of a message header (linux/netlink.h).
mod flag {
    pub(super) const REQUEST: u16 = 0x1;
    pub(super) const ACK: u16 = 0x4;
    pub(super) const CREATE: u16 = 0x400;
    pub(super) const APPEND: u16 = 0x800;
}

/// Kinds of messages (`NFT_MSG_*`).
mod message {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const NEW_SET_ELEMENTS: u16 = 12;
}

/// `NFT_TABLE_F_OWNER`: only the socket that made the table may change it, and the kernel removes
/// the table together with the socket.
const OWNER: u32 = 2;
/// `NFT_TABLE_F_PERSIST`, since Linux 6.9: the table outlives the socket, and belongs to no one
/// then.
const PERSIST: u32 = 4;
/// `NFT_SET_CONSTANT` and `NFT_SET_INTERVAL`.
const CONSTANT_INTERVALS: u32 = 2 | 4;
/// Number that nft gives to the type of IPv4 addresses (`TYPE_IPADDR`).
const TYPE_ADDRESS: u32 = 7;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NFT_REG_1`, the register that expressions use, `NFT_REG_2` for a second value, and
/// `NFT_REG_VERDICT`.
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
const VERDICT_REGISTER: u32 = 0;
/// `NFPROTO_IPV4`.
const NFPROTO_IPV4: u32 = 2;

/// A hook of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// `NF_NETDEV_INGRESS`.
    Ingress,
    /// `NF_NETDEV_EGRESS`, since Linux 5.16.
    Egress,
}

/// The part of a packet that an offset counts from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
}

/// A fact about a packet (`NFT_META_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// EtherType behind VLAN tags, two bytes.
    Protocol = 1,
    /// 1 if the packet came out of IPsec, one byte.
    FromIpsec = 25,
}

/// An expression of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expression<'a> {
    LoadMeta(Meta),
    /// Loads bytes of the packet.
    Load {
        base: Base,
        offset: u32,
        length: u32,
    },
    /// Keeps these bits of as many bytes.
    Mask(&'a [u8]),
    IsEqual(&'a [u8]),
    IsNot(&'a [u8]),
    /// Continues if the set holds the loaded address.
    IsIn(&'a str),
    /// Sets the interface of [`Self::Send`], by index.
    SetInterface(u32),
    /// Sets the next hop of [`Self::Send`].
    SetNextHop(Ipv4Addr),
    /// Sends the packet. The kernel decrements its TTL.
    Send,
    Count,
    Accept,
    Drop,
    Goto(&'a str),
}

/// A batch of changes to one table.
pub(super) struct Batch<'a> {
    table: &'a str,
    bytes: Vec<u8>,
    /// Number of messages.
    count: u32,
    /// Offset of the last message.
    last: usize,
}

impl<'a> Batch<'a> {
    /// Begins a batch for a table of the family `netdev`.
    pub(super) fn begin(table: &'a str) -> Self {
        let mut batch = Self { table, bytes: Vec::new(), count: 0, last: 0 };
        batch.header(BEGIN, flag::REQUEST, SUBSYSTEM, |_| {});
        batch
    }

    /// Ends the batch. Returns its bytes.
    ///
    /// The kernel answers the last change, after the answers to the changes that it refuses.
    /// Kernels before Linux 6.10 do not answer the end itself.
    pub(super) fn end(mut self) -> Vec<u8> {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag::ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.header(END, flag::REQUEST, SUBSYSTEM, |_| {});
        self.bytes
    }

    pub(super) fn delete_table(&mut self) {
        self.change(message::DELETE_TABLE, 0, |attributes, table| attributes.text(1, table));
    }

    /// Makes a table that belongs to the sending socket. `persists`: the table outlives the socket.
    pub(super) fn new_table(&mut self, persists: bool) {
        self.change(message::NEW_TABLE, flag::CREATE, |attributes, table| {
            attributes.text(1, table);
            attributes.number(2, if persists { OWNER | PERSIST } else { OWNER });
        });
    }

    /// Makes a chain that only other chains call.
    pub(super) fn new_chain(&mut self, name: &str) {
        self.change(message::NEW_CHAIN, flag::CREATE, |attributes, table| {
            attributes.text(1, table);
            attributes.text(3, name);
        });
    }

    /// Makes a chain that sees every packet of a device.
    pub(super) fn new_base_chain(&mut self, name: &str, hook: Hook, device: &str, priority: i32) {
        self.change(message::NEW_CHAIN, flag::CREATE, |attributes, table| {
            attributes.text(1, table);
            attributes.text(3, name);
            attributes.nested(4, |hooked| {
                hooked.number(1, hook as u32);
                hooked.number(2, priority.cast_unsigned());
                hooked.text(3, device);
            });
            attributes.text(7, "filter");
        });
    }

    /// Makes a set of addresses. `ranges`: in order and apart.
    pub(super) fn new_set(&mut self, name: &str, ranges: &[AddressRange]) {
        let id = self.count;
        self.change(message::NEW_SET, flag::CREATE, |attributes, table| {
            attributes.text(1, table);
            attributes.text(2, name);
            attributes.number(3, CONSTANT_INTERVALS);
            attributes.number(4, TYPE_ADDRESS);
            attributes.number(5, size_of::<Ipv4Addr>() as u32);
            attributes.number(10, id);
        });
        self.change(message::NEW_SET_ELEMENTS, flag::CREATE, |attributes, table| {
            attributes.text(1, table);
            attributes.text(2, name);
            attributes.number(4, id);
            attributes.nested(3, |elements| {
                for (address, is_end) in bounds(ranges) {
                    elements.nested(LIST_ELEMENT, |element| {
                        element.nested(1, |key| key.bytes(1, &address.octets()));
                        if is_end {
                            element.number(3, INTERVAL_END);
                        }
                    });
                }
            });
        });
    }

    /// Adds a rule behind the others of a chain.
    pub(super) fn new_rule(&mut self, chain: &str, expressions: &[Expression<'_>]) {
        self.change(message::NEW_RULE, flag::CREATE | flag::APPEND, |attributes, table| {
            attributes.text(1, table);
            attributes.text(2, chain);
            attributes.nested(4, |list| {
                for expression in expressions {
                    list.nested(LIST_ELEMENT, |element| expression.write(element));
                }
            });
        });
    }

    fn change(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>, &str)) {
        let table = self.table;
        let flags = flag::REQUEST | flags;
        self.header(SUBSYSTEM << 8 | kind, flags, 0, |attributes| fill(attributes, table));
    }

    /// Writes a message: `nlmsghdr`, `nfgenmsg`, attributes.
    fn header(
        &mut self,
        kind: u16,
        flags: u16,
        resource: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        let is_of_batch = kind == BEGIN || kind == END;
        self.bytes.extend([if is_of_batch { 0 } else { NETDEV }, 0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.count += 1;
    }
}

/// Lists the first address of each range, and the address behind each one, with a mark.
///
/// The kernel finds an address in the set if the closest bound at or below it is unmarked.
fn bounds(ranges: &[AddressRange]) -> Vec<(Ipv4Addr, bool)> {
    let mut bounds = Vec::new();
    if ranges.first().is_some_and(|range| range.first != Ipv4Addr::UNSPECIFIED) {
        bounds.push((Ipv4Addr::UNSPECIFIED, true));
    }
    for range in ranges {
        bounds.push((range.first, false));
        let behind = range.last.to_bits().checked_add(1);
        bounds.extend(behind.map(|behind| (Ipv4Addr::from_bits(behind), true)));
    }
    bounds
}

impl Expression<'_> {
    fn write(&self, element: &mut Attributes<'_>) {
        let name = match self {
            Self::LoadMeta(_) => "meta",
            Self::Load { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::IsEqual(_) | Self::IsNot(_) => "cmp",
            Self::IsIn(_) => "lookup",
            Self::Count => "counter",
            Self::Send => "fwd",
            Self::SetInterface(_)
            | Self::SetNextHop(_)
            | Self::Accept
            | Self::Drop
            | Self::Goto(_) => "immediate",
        };
        element.text(1, name);
        element.nested(2, |data| self.write_data(data));
    }

    fn write_data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::LoadMeta(meta) => {
                data.number(1, REGISTER);
                data.number(2, *meta as u32);
            }
            Self::Load { base, offset, length } => {
                data.number(1, REGISTER);
                data.number(2, *base as u32);
                data.number(3, *offset);
                data.number(4, *length);
            }
            Self::Mask(mask) => {
                data.number(1, REGISTER);
                data.number(2, REGISTER);
                data.number(3, mask.len() as u32);
                data.nested(4, |value| value.bytes(1, mask));
                data.nested(5, |value| value.bytes(1, &vec![0; mask.len()]));
            }
            Self::IsEqual(value) => compare(data, 0, value),
            Self::IsNot(value) => compare(data, 1, value),
            Self::IsIn(set) => {
                data.text(1, set);
                data.number(2, REGISTER);
            }
            Self::SetInterface(index) => set(data, REGISTER, &index.to_ne_bytes()),
            Self::SetNextHop(via) => set(data, SECOND_REGISTER, &via.octets()),
            Self::Send => {
                data.number(1, REGISTER);
                data.number(2, SECOND_REGISTER);
                data.number(3, NFPROTO_IPV4);
            }
            Self::Count => {}
            Self::Drop => verdict(data, 0, None),
            Self::Accept => verdict(data, 1, None),
            // `NFT_GOTO`.
            Self::Goto(chain) => verdict(data, -4, Some(chain)),
        }
    }
}

/// Writes a comparison. `operator`: 0 for equal, 1 for not equal.
fn compare(data: &mut Attributes<'_>, operator: u32, value: &[u8]) {
    data.number(1, REGISTER);
    data.number(2, operator);
    data.nested(3, |wanted| wanted.bytes(1, value));
}

/// Writes a value into a register.
fn set(data: &mut Attributes<'_>, register: u32, value: &[u8]) {
    data.number(1, register);
    data.nested(2, |data| data.bytes(1, value));
}

fn verdict(data: &mut Attributes<'_>, code: i32, chain: Option<&str>) {
    data.number(1, VERDICT_REGISTER);
    data.nested(2, |value| {
        value.nested(2, |verdict| {
            verdict.number(1, code.cast_unsigned());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}

/// Writes netlink attributes.
struct Attributes<'b>(&'b mut Vec<u8>);

impl Attributes<'_> {
    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |attributes| attributes.0.extend(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, fill);
    }

    /// Writes an attribute: its length without padding, its kind, its value, padding.
    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_form_that_the_kernel_reads() {
        let mut batch = Batch::begin("t");
        batch.new_table(false);
        let bytes = batch.end();
        let length = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (table, end) = (length(0), length(0) + length(20));
        assert_eq!((length(0), length(table), length(end)), (20, 20 + 8 + 8, 20));
        assert_eq!(bytes.len(), end + 20);
        assert_eq!(bytes[table + 4..table + 6], 0x0a00_u16.to_ne_bytes());
        assert_eq!(bytes[table + 6..table + 8], 0x0405_u16.to_ne_bytes(), "with an answer");
        // The family, then the name, then the flag.
        assert_eq!(bytes[table + 16..table + 20], [5, 0, 0, 0]);
        assert_eq!(bytes[table + 24..table + 28], *b"t\0\0\0");
        assert_eq!(bytes[table + 32..table + 36], [0, 0, 0, 2]);
    }

    #[test]
    fn a_set_has_the_bounds_of_its_ranges() {
        let range = |first: &str, last: &str| AddressRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        };
        let of = |ranges: &[AddressRange]| {
            let bounds = bounds(ranges).into_iter();
            bounds
                .map(|(at, end)| format!("{}{at}", if end { "!" } else { "" }))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [""; 0]);
        assert_eq!(of(&[range("10.0.0.0", "10.0.0.9")]), ["!0.0.0.0", "10.0.0.0", "!10.0.0.10"]);
        assert_eq!(of(&[range("0.0.0.0", "255.255.255.255")]), ["0.0.0.0"]);
    }
}
