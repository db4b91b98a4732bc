//! The miss path: a packet without a session.
//!
//! ```text
//!   decide ─▶ reserve (host limit, mapping, port) ─▶ insert the session ─▶ rewrite
//!                                                      └─ table full or conflict: release, then
//!                                                         translate without a session, or drop
//! ```

mod hairpin;
mod inbound;
mod outbound;
mod stateless;

use crate::nat::table::key::Key;
use crate::nat::tracking::tcp_window::Segment;
use crate::nat::translate::decide::{Content, Query};
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::nat::verdict::Verdict;
use crate::time::Tick;

impl Translator {
    /// Handles a packet without a session.
    #[cold]
    pub(crate) fn open_session(
        &self,
        context: &mut impl Effects,
        packet: Packet<'_>,
        key: Key,
        segment: Option<&Segment>,
        now: Tick,
    ) -> Verdict {
        let flags = segment.map(|segment| segment.flags);
        let Some(content) = Content::of(packet.parsed.payload(), flags) else {
            unreachable!("a packet with a tuple has a content that may open a session");
        };
        let decision = self.decide_unmatched(&Query { tuple: key.tuple(), content }, now);
        self.carry_out(context, packet, segment, decision, now)
    }
}
