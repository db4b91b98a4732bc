//! ICMP errors: matched by the packet that they quote, and translated in both headers (RFC 5508
//! section 4).
//!
//! An error reports on a packet that the translator sent on. So the quote is that packet as it
//! left: the reverse of one of a session's two tuples. The sender of the packet knows it by the
//! session's other tuple. The quote becomes this tuple, and the error goes to its source. Errors
//! never refresh, shorten or end a session (RFC 5508 REQ-6).

use std::net::Ipv4Addr;

use crate::nat::context::WorkerContext;
use crate::nat::table::key::Key;
use crate::nat::translate::decide::{Decision, ErrorRewrite, is_martian};
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpError, Parsed, Ttl, Tuple};
use crate::time::Tick;

/// The packet that an error reports on.
struct Report {
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
        context: &mut WorkerContext,
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
        let Some(report) = self.report(error.quoted, now) else {
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
        context: &mut WorkerContext,
        packet: &mut Packet<'_>,
        rewrite: &ErrorRewrite,
    ) -> Verdict {
        let ErrorRewrite { error, source, destination, quoted, inside } = *rewrite;
        packet.parsed.rewrite_error(packet.buffer, source, destination, quoted, Ttl::Increment);
        self.scrub_error(packet, error, source, destination, inside);
        context.counters.icmp_errors_translated += 1;
        Verdict::Translated
    }

    fn report(&self, quoted: Tuple, now: Tick) -> Option<Report> {
        if let Some(hit) = self.table.lookup(Key::of(quoted.reversed()), now) {
            return Some(Report {
                sent: hit.to.reversed(),
                to_inside: hit.origin.is_inbound(hit.direction),
            });
        }
        // A packet of a forward that was translated without a session.
        if let Some(server) = self.forwards.target(quoted.protocol, quoted.source) {
            return Some(Report { sent: Tuple { source: server, ..quoted }, to_inside: true });
        }
        if self.forwards.published_more_than_once(quoted.protocol, quoted.destination) {
            // The published endpoint that the packet used is unknown.
            return None;
        }
        let (_, published) = self.forwards.published(quoted.protocol, quoted.destination, None)?;
        Some(Report { sent: Tuple { destination: published, ..quoted }, to_inside: false })
    }

    /// Reports whether `reporter` may send an error about the quoted packet.
    ///
    /// For a packet on its way out every outside address may: routers of the Internet do (RFC 5508
    /// REQ-4). For a packet on its way in, or to another inside host, the receiver of the packet
    /// may, and so may routers. Routers are the next hops that the host knows, and inside addresses
    /// that have no sessions or forwards and send no error that only a receiver sends. Other inside
    /// hosts may not report on packets of their neighbours.
    fn may_report(&self, reporter: Ipv4Addr, error: IcmpError, to_inside: bool) -> bool {
        let of_receivers = matches!((error.kind, error.code), (3, 2 | 3));
        reporter == error.quoted.destination.address
            || self.policy.inside_address == Some(reporter)
            || self.is_kernels_own(reporter)
            || self.policy.inside_routers.contains(&reporter)
            || match self.is_inside(reporter) {
                true => {
                    !(of_receivers
                        || self.forwards.has_server(reporter)
                        || self.hosts.has_sessions(reporter))
                }
                false => to_inside,
            }
    }

    /// Reports whether the host's kernel uses an address on the TUN device.
    fn is_kernels_own(&self, address: Ipv4Addr) -> bool {
        self.policy.tun_address == Some(address) || self.uplink_of_probe_address(address).is_some()
    }

    /// The source address of the translated error. An inside reporter has no address that the
    /// outside may see: its error gets the address that the receiver was talking to (RFC 5508
    /// REQ-5). An outside reporter keeps its own.
    fn error_source(&self, parsed: &Parsed, report: &Report) -> Ipv4Addr {
        let reporter = parsed.source();
        if self.is_kernels_own(reporter) {
            // The host's kernel, about a packet that the translator handed to it.
            return match self.policy.inside_address {
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
