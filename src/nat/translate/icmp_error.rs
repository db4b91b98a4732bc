//! ICMP errors: found by the packet they quote, translated outside and in (RFC 5508 section 4).
//!
//! An error reports on a packet that the box sent on, so the quote is that packet as it left: the mirror of one of a
//! session's two tuples. The packet's sender knows it by the session's other tuple, which is what the quote becomes;
//! the error goes to that tuple's source. Errors never refresh, shorten or end a session (RFC 5508 REQ-6).

use std::net::Ipv4Addr;

use crate::nat::context::WorkerContext;
use crate::nat::table::key::Key;
use crate::nat::translate::decide::{Decision, ErrorRewrite, is_martian};
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{IcmpError, Parsed, Ttl, Tuple};
use crate::time::Tick;

/// What an error's quote leads to.
struct Report {
    /// The quoted packet as its sender wrote it.
    sent: Tuple,
    /// Whether that sender is inside.
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
        // No other host has the addresses of the box. What its kernel writes bears the TUN's, a link-local one.
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
        // A forward that went on without a session.
        if let Some(server) = self.forwards.target(quoted.protocol, quoted.source) {
            return Some(Report { sent: Tuple { source: server, ..quoted }, to_inside: true });
        }
        if self.forwards.published_more_than_once(quoted.protocol, quoted.destination) {
            // Nobody knows where the packet came in.
            return None;
        }
        let (_, published) = self.forwards.published(quoted.protocol, quoted.destination, None)?;
        Some(Report { sent: Tuple { destination: published, ..quoted }, to_inside: false })
    }

    /// Whether `reporter` may speak about the quoted packet. On its way out anyone outside may: it is the Internet's routers
    /// that do (RFC 5508 REQ-4). On its way in, or to another inside host, it is the packet's receiver, or a router: one that the host knows as a next hop, or one
    /// further in, which says what only routers say and has no sessions of its own. Everybody else is another host, which
    /// has no business with the packets of its neighbours.
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

    /// Whether an address is the box's own on the TUN, which its kernel uses.
    fn is_kernels_own(&self, address: Ipv4Addr) -> bool {
        self.policy.tun_address == Some(address) || self.uplink_of_probe_address(address).is_some()
    }

    /// Whose name the translated error bears. An inside reporter has no address that the outside may see, so it
    /// appears as the address that the receiver was talking to (RFC 5508 REQ-5). An outside one keeps its own.
    fn error_source(&self, parsed: &Parsed, report: &Report) -> Ipv4Addr {
        let reporter = parsed.source();
        if self.is_kernels_own(reporter) {
            // The host's own kernel, about a packet that we handed to it.
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
