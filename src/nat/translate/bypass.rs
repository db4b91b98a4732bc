//! The path of packets to and from destinations without translation (RFC 6888 REQ-6). Such packets
//! pass unchanged.
//!
//! Bypassed packets have no session and are not filtered: every sender with such a source address
//! reaches the inside. A packet of an existing session is translated, so a client at such an
//! address that talks to a published address gets replies from that address. If the client's packet
//! was forwarded without a session (see [`crate::nat::counters::Counters::forwarded_stateless`]),
//! the reply of the server bypasses translation.

use crate::nat::translate::decide::{Decision, ErrorRewrite};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::Verdict;
use crate::packet::{Endpoint, IcmpError, Parsed, Protocol, Ttl, Tuple};

impl Translator {
    /// Forwards a packet without translation.
    pub(crate) fn bypass(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        tuple: Tuple,
    ) -> Verdict {
        packet.parsed.rewrite(packet.buffer, tuple, Ttl::Increment);
        context.worker().counters.bypassed += 1;
        Verdict::Translated
    }

    /// Decides about an ICMP error that quotes a packet without a session. None: the quoted packet
    /// was not bypassed.
    ///
    /// Errors of the host's kernel have the address of the TUN device as their source, which no
    /// other host may see. The translator replaces this source by the destination of the quoted
    /// packet, or by the inside address of the box.
    pub(crate) fn decide_bypass_error(
        &self,
        parsed: &Parsed,
        error: IcmpError,
    ) -> Option<Decision> {
        let (sender, receiver) = (error.quoted.source.address, error.quoted.destination.address);
        let inside = self.inside_end_of_bypass(error.quoted)?.address == sender;
        if parsed.destination() != sender {
            return None;
        }
        let source = match parsed.source() {
            own if self.policy.tun_address == Some(own) => {
                match self.policy.error_source_towards(sender) {
                    Some(address) if inside => address,
                    Some(_) | None => receiver,
                }
            }
            reporter => reporter,
        };
        let quoted = error.quoted;
        let rewrite = ErrorRewrite { error, source, destination: sender, quoted, inside };
        Some(Decision::BypassError(rewrite))
    }

    /// Forwards an ICMP error about an untranslated packet.
    pub(crate) fn bypass_error(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        rewrite: &ErrorRewrite,
    ) -> Verdict {
        let ErrorRewrite { source, destination, quoted, .. } = *rewrite;
        packet.parsed.rewrite_error(packet.buffer, source, destination, quoted, Ttl::Increment);
        context.worker().counters.bypassed += 1;
        Verdict::Translated
    }

    /// Returns the inside end of a packet between the inside and a destination without translation,
    /// in either direction.
    pub(crate) fn inside_end_of_bypass(&self, tuple: Tuple) -> Option<Endpoint> {
        if self.policy.no_nat.is_empty() {
            return None;
        }
        let (source, destination) = (tuple.source, tuple.destination);
        let (inside, remote) =
            match (self.is_inside(source.address), self.is_inside(destination.address)) {
                (true, false) => (source, destination),
                (false, true) => (destination, source),
                (true, true) | (false, false) => return None,
            };
        let is_bypassed =
            self.external(remote.address).is_none() && self.is_bypassed(tuple.protocol, remote);
        is_bypassed.then_some(inside)
    }

    fn is_bypassed(&self, protocol: Protocol, remote: Endpoint) -> bool {
        self.policy.no_nat.iter().any(|rule| rule.covers(protocol, remote))
    }
}
