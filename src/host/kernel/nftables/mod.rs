//! A table of nftables that belongs to this process: the filter of private addresses.
//!
//! natbox sends the messages itself and runs no `nft`, because the table belongs to the socket that
//! made it (`NFT_TABLE_F_OWNER`, Linux 5.12). So `nft flush ruleset` of another program spares the
//! table, and the kernel removes the table when the process ends, however it ends.
//!
//! | file    | content                                       |
//! |---------|-----------------------------------------------|
//! | `batch` | messages to nftables                          |
//! | this    | the socket, and the rules of the filter       |

mod batch;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use self::batch::{Base, Batch, Expression, HEADER, Hook, Meta};
use crate::host::error::HostError;
use crate::host::model::private_filter::PrivateFilter;

/// Order of the chains among those of other programs: first on the way in, last on the way out.
const INGRESS_PRIORITY: i32 = -500;
const EGRESS_PRIORITY: i32 = 500;
/// Names of the chains for packets with a closed address.
const CLOSED_IN: &str = "closed-in";
const CLOSED_OUT: &str = "closed-out";
/// Names of the sets for packets without translation.
const INSIDE: &str = "inside";
const NO_NAT: &str = "no-nat";
/// EtherTypes.
const IPV4: [u8; 2] = [0x08, 0x00];
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// The two addresses of an IPv4 header.
const SOURCE: Expression<'static> = Expression::Load { base: Base::Network, offset: 12, length: 4 };
const DESTINATION: Expression<'static> =
    Expression::Load { base: Base::Network, offset: 16, length: 4 };
/// `NLMSG_ERROR`: the kernel's answer, success included.
const ANSWER: u16 = 2;

/// The table of this process. The kernel removes the table when the value is dropped.
#[derive(Default)]
pub(crate) struct FilterTable {
    /// None until the table is first set.
    socket: Option<OwnedFd>,
    /// The filter as it is set.
    current: Option<PrivateFilter>,
}

impl FilterTable {
    /// Sets, replaces or removes the filter, unless it is as wanted. Packets never find a part of
    /// it.
    ///
    /// # Errors
    /// When the kernel refuses the filter. The previous one stays.
    pub(crate) fn set(&mut self, wanted: Option<PrivateFilter>) -> Result<(), HostError> {
        if self.current == wanted {
            return Ok(());
        }
        let Some(filter) = &wanted else {
            *self = Self::default();
            return Ok(());
        };
        let doing = || format!("setting the table {} of nftables", filter.table);
        self.send(filter).map_err(|source| HostError::Netlink { doing: doing(), source })?;
        self.current = wanted;
        Ok(())
    }

    fn send(&mut self, filter: &PrivateFilter) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect()?,
        };
        let replaces = self.current.is_some();
        let result = match exchange(&socket, &changes(filter, replaces, true)) {
            // A kernel without IPsec.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                exchange(&socket, &changes(filter, replaces, false))
            }
            result => result,
        };
        self.socket = Some(socket);
        result
    }
}

fn connect() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends a batch and reads the kernel's answer. The kernel has answered when the call for sending
/// returns.
fn exchange(socket: &OwnedFd, batch: &[u8]) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, batch, SendFlags::empty(), &kernel)?;
    let mut buffer = [0; 8192];
    // The first answer decides. Others are errors of later messages of the batch.
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    let outcome = outcome(&buffer[..length.min(buffer.len())]);
    while rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).is_ok() {}
    outcome
}

/// Reads an answer: `nlmsghdr`, then an error number, which is negative or zero.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let unknown = || io::Error::other("the kernel's answer is unknown");
    let (header, rest) = answer.split_at_checked(HEADER).ok_or_else(unknown)?;
    let number = rest.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or_else(unknown)?;
    match (u16::from_ne_bytes([header[4], header[5]]), number) {
        (ANSWER, 0) => Ok(()),
        (ANSWER, number) => Err(io::Error::from_raw_os_error(-number)),
        _ => Err(unknown()),
    }
}

/// Makes the batch of a filter. `replaces`: the table exists. `has_ipsec`: the kernel knows packets
/// that came out of IPsec.
///
/// A packet of another EtherType or with open addresses passes one comparison and one set.
fn changes(filter: &PrivateFilter, replaces: bool, has_ipsec: bool) -> Vec<u8> {
    let mut batch = Batch::begin(&filter.table);
    if replaces {
        batch.delete_table();
    }
    batch.new_table();
    let has_no_nat = !filter.no_nat.is_empty();
    if has_no_nat {
        batch.new_set(INSIDE, &filter.inside);
        batch.new_set(NO_NAT, &filter.no_nat);
    }
    for chain in [CLOSED_IN, CLOSED_OUT] {
        batch.new_chain(chain);
        pass_other_vlans(&mut batch, chain);
    }
    if has_ipsec {
        // IPsec gives the inner packet the interface of the outer one.
        let from_ipsec = Expression::LoadMeta(Meta::FromIpsec);
        batch.new_rule(CLOSED_IN, &[from_ipsec, Expression::IsEqual(&[1]), Expression::Accept]);
    }
    for (chain, of_inside, of_outside) in
        [(CLOSED_IN, DESTINATION, SOURCE), (CLOSED_OUT, SOURCE, DESTINATION)]
    {
        if has_no_nat {
            let (is_inside, is_exempt) = (Expression::IsIn(INSIDE), Expression::IsIn(NO_NAT));
            let rule = [of_inside, is_inside, of_outside, is_exempt, Expression::Accept];
            batch.new_rule(chain, &rule);
        }
        batch.new_rule(chain, &[Expression::Count, Expression::Drop]);
    }
    for interface in &filter.interfaces {
        let name = &interface.name;
        let set = format!("closed-{name}");
        batch.new_set(&set, &interface.closed);
        for (chain, hook, priority, address, closed) in [
            (format!("in-{name}"), Hook::Ingress, INGRESS_PRIORITY, DESTINATION, CLOSED_IN),
            (format!("out-{name}"), Hook::Egress, EGRESS_PRIORITY, SOURCE, CLOSED_OUT),
        ] {
            batch.new_base_chain(&chain, hook, name, priority);
            let (protocol, is_ipv4) =
                (Expression::LoadMeta(Meta::Protocol), Expression::IsEqual(&IPV4));
            let is_closed = Expression::IsIn(&set);
            let rule = [protocol, is_ipv4, address, is_closed, Expression::Goto(closed)];
            batch.new_rule(&chain, &rule);
        }
    }
    batch.end()
}

/// Lets packets of VLANs pass: an interface also carries the packets of the VLANs above it, and one
/// of them may be an inside leg. A packet of VLAN 0 belongs to the interface itself (IEEE 802.1Q).
fn pass_other_vlans(batch: &mut Batch<'_>, chain: &str) {
    let bytes = |offset| Expression::Load { base: Base::Link, offset, length: 2 };
    for tag in &VLAN {
        batch.new_rule(
            chain,
            &[
                bytes(12),
                Expression::IsEqual(tag),
                bytes(14),
                Expression::Mask([0x0f, 0xff]),
                Expression::IsNot(&[0, 0]),
                Expression::Accept,
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_is_success_or_an_error_number() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            bytes
        };
        assert!(outcome(&answer(2, 0)).is_ok());
        let refused = outcome(&answer(2, -libc::EPERM)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(outcome(&answer(3, 0)).is_err());
        assert!(outcome(&answer(2, 0)[..18]).is_err());
    }
}
