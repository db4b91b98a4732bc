//! ICMP errors: matched by the packet that they quote, and translated in both headers (RFC 5508
//! section 4).
//!
//! An error reports on a packet that the translator has forwarded. So the quote shows the packet as
//! it left: its tuple is the reverse of one of a session's two tuples. The sender of the packet
//! sent it with the session's other tuple. The translator rewrites the quote to this tuple, and
//! sends the error to the tuple's source. Errors never refresh, shorten or end a session (RFC 5508
//! REQ-6).

use std::net::Ipv4Addr;

use crate::nat::table::key::Key;
use crate::nat::translate::decide::{Decision, ErrorRewrite, is_martian};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpError, Parsed, Ttl, Tuple};
use crate::time::Tick;

/// The packet that an error reports on.
struct QuotedPacket {
    /// The quoted packet as its sender wrote it.
    sent: Tuple,
    /// True: the sender is inside.
    to_inside: bool,
}

impl Translator {
    /// Handles an ICMP error.
    #[cold]
    pub(crate) fn translate_error(
        &self,
        context: &mut impl Effects,
        packet: Packet<'_>,
        error: IcmpError,
        now: Tick,
    ) -> Verdict {
        let decision = self.decide_error(packet.parsed, error, now);
        self.carry_out(context, packet, None, decision, now)
    }

    /// Decides about an ICMP error.
    pub(crate) fn decide_error(&self, parsed: &Parsed, error: IcmpError, now: Tick) -> Decision {
        // No other host has the addresses of the box. Errors of its kernel have the link-local
        // address of the TUN device.
        let is_kernels_own = self.is_kernels_own(parsed.source());
        if !is_kernels_own
            && (is_martian(parsed.source()) || self.external(parsed.source()).is_some())
        {
            return Decision::Drop(DropReason::Martian);
        }
        let Some(report) = self.quoted_packet(error.quoted, now) else {
            return self.decide_bypass_error(parsed, error).unwrap_or_else(|| {
                match self.is_assigned(parsed.destination()) {
                    true => Decision::PassToHost,
                    false => Decision::Drop(DropReason::IcmpErrorNoSession),
                }
            });
        };
        if parsed.destination() != error.quoted.source.address
            || !self.may_report(parsed.source(), error, report.to_inside)
        {
            return Decision::Drop(DropReason::IcmpErrorMismatch);
        }
        Decision::Error(ErrorRewrite {
            error,
            source: self.error_source(parsed, &report),
            destination: report.sent.source.address,
            quoted: report.sent,
            inside: report.to_inside,
        })
    }

    /// Translates an ICMP error.
    pub(crate) fn rewrite_error(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        rewrite: &ErrorRewrite,
    ) -> Verdict {
        let ErrorRewrite { error, source, destination, quoted, inside } = *rewrite;
        packet.parsed.rewrite_error(packet.buffer, source, destination, quoted, Ttl::Increment);
        self.scrub_error(context, packet, error, source, destination, inside);
        context.worker().counters.icmp_errors_translated += 1;
        Verdict::Translated
    }

    fn quoted_packet(&self, quoted: Tuple, now: Tick) -> Option<QuotedPacket> {
        if let Some(hit) = self.table.lookup(Key::of(quoted.reversed()), now) {
            return Some(QuotedPacket {
                sent: hit.to.reversed(),
                to_inside: hit.origin.is_inbound(hit.direction),
            });
        }
        // A packet of a forward that was translated without a session.
        if let Some(server) = self.forwards.at(quoted.protocol, quoted.source)
            && !(server.is_shared && self.has_other_sender(quoted.protocol, quoted.source))
        {
            let sent = Tuple { source: server.inside, ..quoted };
            return Some(QuotedPacket { sent, to_inside: true });
        }
        if self.external(quoted.source.address).is_some() {
            // Only a session sends packets from an external address to a server.
            return None;
        }
        if self.forwards.published_more_than_once(quoted.protocol, quoted.destination) {
            // The published endpoint that the packet used is unknown.
            return None;
        }
        let published = self.forwards.published(quoted.protocol, quoted.destination, None)?;
        let sent = Tuple { destination: published.external, ..quoted };
        Some(QuotedPacket { sent, to_inside: false })
    }

    /// Reports whether `reporter` may send an error about the quoted packet.
    ///
    /// If the packet went outside, every outside address may, because routers of the Internet do
    /// (RFC 5508 REQ-4). If the packet went inside, its receiver and routers may. Routers are the
    /// next hops of the host, and inside addresses without sessions and forwards that send no error
    /// which only a receiver sends. Other inside hosts may not report on packets of their
    /// neighbours.
    fn may_report(&self, reporter: Ipv4Addr, error: IcmpError, to_inside: bool) -> bool {
        let of_receivers = matches!((error.kind, error.code), (3, 2 | 3));
        reporter == error.quoted.destination.address
            || self.is_kernels_own(reporter)
            || self.is_on_the_way_inside(reporter)
            || match self.is_inside(reporter) {
                true => {
                    !(of_receivers
                        || self.forwards.has_server(reporter)
                        || self.hosts.has_sessions(reporter))
                }
                false => to_inside,
            }
    }

    /// Reports whether an address is the box's own on an inside leg, or that of a router there.
    fn is_on_the_way_inside(&self, address: Ipv4Addr) -> bool {
        self.policy
            .legs
            .iter()
            .any(|leg| leg.address == Some(address) || leg.routers.contains(&address))
    }

    /// Reports whether the host's kernel uses an address on the TUN device.
    fn is_kernels_own(&self, address: Ipv4Addr) -> bool {
        self.policy.tun_address == Some(address) || self.is_hosts_own(address)
    }

    /// Returns the source address of the translated error. The outside must not see the address of
    /// an inside reporter, so its error gets the destination to which the quoted packet was sent
    /// (RFC 5508 REQ-5). An outside reporter keeps its own address.
    fn error_source(&self, parsed: &Parsed, report: &QuotedPacket) -> Ipv4Addr {
        let reporter = parsed.source();
        if self.is_kernels_own(reporter) {
            // An error of the host's kernel about a packet that the translator sent.
            return match self.policy.error_source_towards(report.sent.source.address) {
                Some(address) if report.to_inside => address,
                Some(_) | None => report.sent.destination.address,
            };
        }
        if self.is_inside(reporter) || !report.to_inside {
            report.sent.destination.address
        } else {
            reporter
        }
    }
}
