//! Packets of forwards that are translated without a session.

use crate::nat::translate::commit::Unmatched;
use crate::nat::translate::decide::Rewrite;
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Tuple};
use crate::time::Tick;

impl Translator {
    /// Forwards a client's packet to the server of a forward without a session, because the session
    /// table is full.
    pub(crate) fn forward_request_stateless(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'_>,
        uplink: u8,
        server: Endpoint,
    ) -> Result<Verdict, DropReason> {
        let to = Tuple { destination: server, ..miss.tuple };
        let rewrite = self.stateless_request(to, uplink, DropReason::TableFull, miss.now)?;
        Ok(self.send_stateless(context, &mut miss.packet, rewrite, miss.now))
    }

    /// Forwards a published server's packet without a session, unless the request may have used
    /// another published endpoint.
    pub(crate) fn forward_reply_stateless(
        &self,
        context: &mut impl Effects,
        mut miss: Unmatched<'_>,
        published: Endpoint,
        uplink: u8,
    ) -> Result<Verdict, DropReason> {
        if self.is_published_more_than_once(miss.tuple) {
            return Err(DropReason::UplinkUnknown);
        }
        let to = Tuple { source: published, ..miss.tuple };
        let rewrite = Rewrite { to, inside: false, uplink };
        Ok(self.send_stateless(context, &mut miss.packet, rewrite, miss.now))
    }

    /// Translates a packet of a forward without a session.
    pub(crate) fn send_stateless(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        rewrite: Rewrite,
        now: Tick,
    ) -> Verdict {
        let verdict = self.rewrite_and_count(context, packet, rewrite, now);
        if verdict == Verdict::Translated {
            let worker = context.worker();
            worker.counters.forwarded_stateless += 1;
            worker.traffic.count(rewrite.uplink, rewrite.inside, packet.parsed.length());
        }
        verdict
    }
}
