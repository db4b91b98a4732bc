//! A batch of frames: parses all, hashes all and prefetches their buckets, prefetches their
//! records, and translates each.

use crate::nat::context::{FrameClass, WorkerContext};
use crate::nat::table::key::Key;
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translate::observed::{Decided, Observer, Unobserved};
use crate::nat::translator::Translator;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{BATCH, ChecksumMode, Frame, Frames, Offload, Parsed, Payload, parse};
use crate::time::{Span, Tick};

impl Translator {
    /// Translates the received frames, and submits or sends the packets that leave.
    ///
    /// A frame that is not submitted was dropped, or is a fragment that waits for the first
    /// fragment of its datagram. The counters of `context` show which. `now` must never decrease
    /// for one context.
    #[inline]
    pub fn process(&self, context: &mut WorkerContext, frames: &mut impl Frames, now: Tick) {
        self.process_observed(context, frames, &mut Unobserved, now);
    }

    /// Does the work of [`Self::process`], and shows each frame to an observer.
    #[inline]
    pub(crate) fn process_observed<O: Observer>(
        &self,
        context: &mut WorkerContext,
        frames: &mut impl Frames,
        observer: &mut O,
        now: Tick,
    ) {
        let mut classes = std::mem::take(&mut context.classes);
        let count = frames.received();
        let mut first = 0;
        while first < count {
            let length = (count - first).min(BATCH);
            self.process_from(context, &mut classes[..length], frames, observer, first, now);
            first += length;
        }
        context.classes = classes;
        context.counters.batches += u64::from(count != 0);
    }

    /// Ends expired sessions, in a slice of bounded work, and sends packets that are due.
    ///
    /// Returns the time for the next call. None: nothing is due before the next packet arrives.
    pub fn poll(
        &self,
        context: &mut WorkerContext,
        frames: &mut impl Frames,
        now: Tick,
    ) -> Option<Tick> {
        if !self.expire_into(context, frames, now) {
            return Some(now);
        }
        (!self.is_idle()).then(|| now.after(POLL_INTERVAL))
    }

    /// Does the work of [`Self::poll`]. Returns true when nothing more is due now.
    #[inline]
    pub(crate) fn expire_into(
        &self,
        context: &mut WorkerContext,
        frames: &mut impl Frames,
        now: Tick,
    ) -> bool {
        let done = self.expire(context, now);
        send_outbox(context, frames);
        done
    }

    /// Translates one frame for each of the `classes`, from frame `first` on.
    #[inline]
    pub(crate) fn process_from<O: Observer>(
        &self,
        context: &mut impl Effects,
        classes: &mut [FrameClass],
        frames: &mut impl Frames,
        observer: &mut O,
        first: usize,
        now: Tick,
    ) {
        for (index, class) in classes.iter_mut().enumerate() {
            let frame = frames.frame(first + index);
            observer.arrived(first + index, &frame);
            *class = self.classify(context.worker(), &frame);
        }
        for class in &*classes {
            if let FrameClass::Classified { hash, .. } = class {
                self.table.prefetch_record(*hash);
            }
        }
        for (index, class) in classes.iter().enumerate() {
            self.translate_frame(context, class, frames, observer, first + index, now);
        }
    }

    #[inline]
    fn classify(&self, context: &mut WorkerContext, frame: &Frame<'_>) -> FrameClass {
        context.counters.packets_in += 1;
        context.counters.bytes_in += frame.length as u64;
        let bytes = &frame.buffer[..frame.length];
        let parsed = match parse(bytes, checksum_mode(frame.offload, bytes)) {
            Ok(parsed) => parsed,
            Err(malformed) => return FrameClass::Dropped(malformed.into()),
        };
        match parsed.tuple() {
            Some(tuple) => {
                let key = Key::of(tuple);
                let hash = self.table.hash(key);
                self.table.prefetch_index(hash);
                FrameClass::Classified { parsed, key, hash }
            }
            None => match parsed.payload() {
                Payload::IcmpError(error) => FrameClass::Error { parsed, error },
                Payload::Fragment { .. } => FrameClass::Fragment { parsed },
                Payload::IcmpOther { .. }
                | Payload::Tcp(_)
                | Payload::Udp
                | Payload::IcmpQuery(_)
                | Payload::Other => {
                    FrameClass::Untranslatable { parsed, reason: DropReason::UnsupportedIcmp }
                }
            },
        }
    }

    #[inline]
    fn translate_frame<O: Observer>(
        &self,
        context: &mut impl Effects,
        class: &FrameClass,
        frames: &mut impl Frames,
        observer: &mut O,
        index: usize,
        now: Tick,
    ) {
        let sessions = context.worker().counters.sessions_created;
        let (parsed, verdict, offload) = match class {
            FrameClass::Dropped(reason) => {
                observer.decided(frames, &Decided::malformed(index, *reason), now);
                context.concluded(Verdict::Drop(*reason));
                return drop_frame(context.worker(), *reason, frames, index, now);
            }
            FrameClass::Classified { parsed, key, hash } => {
                let frame = frames.frame(index);
                let wire_length = wire_length(parsed, frame.offload);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length };
                (parsed, self.translate(context, packet, *key, *hash, now), frame.offload)
            }
            FrameClass::Error { parsed, error } => {
                let frame = frames.frame(index);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length: parsed.length() };
                (parsed, self.translate_error(context, packet, *error, now), frame.offload)
            }
            FrameClass::Fragment { parsed } => {
                let frame = frames.frame(index);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length: parsed.length() };
                (parsed, self.translate_fragment(context, packet, now), frame.offload)
            }
            FrameClass::Untranslatable { parsed, reason } => (
                parsed,
                self.untranslated_verdict(parsed.destination(), *reason),
                frames.frame(index).offload,
            ),
        };
        context.concluded(verdict);
        let worker = context.worker();
        let opened = worker.counters.sessions_created != sessions;
        observer.decided(frames, &Decided { index, parsed: Some(parsed), verdict, opened }, now);
        send_frame(worker, frames, index, (parsed, verdict, offload), now);
        worker.outbox.iter().for_each(|packet| observer.released(packet, now));
        send_outbox(worker, frames);
    }
}

/// Submits a frame, or counts it as dropped.
#[inline(always)]
fn send_frame(
    context: &mut WorkerContext,
    frames: &mut impl Frames,
    index: usize,
    (parsed, verdict, offload): (&Parsed, Verdict, Offload),
    now: Tick,
) {
    let counters = &mut context.counters;
    match verdict {
        Verdict::Translated => {
            counters.bytes_out += parsed.length() as u64;
            frames.submit(index, parsed.length(), offload);
        }
        Verdict::PassToHost => {
            counters.passed_to_host += 1;
            counters.bytes_out += parsed.length() as u64;
            frames.submit(index, parsed.length(), offload);
        }
        Verdict::Reply(length, reason) => {
            counters.icmp_errors_sent += 1;
            counters.bytes_out += length as u64;
            context.drop_replaced(reason, now);
            frames.submit(index, length, Offload::default());
        }
        Verdict::Held => {}
        Verdict::Drop(reason) => drop_frame(context, reason, frames, index, now),
    }
}

/// Counts a dropped frame, and keeps it as an example.
#[cold]
#[inline(never)]
fn drop_frame(
    context: &mut WorkerContext,
    reason: DropReason,
    frames: &mut impl Frames,
    index: usize,
    now: Tick,
) {
    let frame = frames.frame(index);
    context.drop_packet(reason, &frame.buffer[..frame.length], now);
}

/// Sends the packets that other packets have released or that are due.
#[inline]
fn send_outbox(context: &mut WorkerContext, frames: &mut impl Frames) {
    for packet in context.outbox.drain(..) {
        context.counters.bytes_out += packet.len() as u64;
        frames.send(&packet, Offload::default());
    }
}

/// Returns [`ChecksumMode::Partial`] if the device must complete the transport checksum of this
/// packet. An offset into an encapsulated packet does not count: natbox does not rewrite that
/// packet.
#[inline]
fn checksum_mode(offload: Offload, bytes: &[u8]) -> ChecksumMode {
    let header_length = bytes.first().map_or(0, |byte| u16::from(byte & 0x0f) * 4);
    match offload.checksum {
        Some(partial) if partial.start == header_length => ChecksumMode::Partial,
        Some(_) | None => ChecksumMode::Complete,
    }
}

/// Returns the length of the packet on the wire, in bytes. For a super-packet, that is the length
/// of one full segment.
#[inline]
fn wire_length(parsed: &Parsed, offload: Offload) -> usize {
    let Some(segmentation) = offload.segmentation else { return parsed.length() };
    let headers = match parsed.payload() {
        Payload::Tcp(tcp) => parsed.length() - usize::from(tcp.payload_length),
        Payload::Udp => parsed.header_length() + UDP_HEADER,
        Payload::IcmpQuery(_)
        | Payload::IcmpError(_)
        | Payload::IcmpOther { .. }
        | Payload::Fragment { .. }
        | Payload::Other => return parsed.length(),
    };
    parsed.length().min(headers + usize::from(segmentation.size))
}

const UDP_HEADER: usize = 8;
/// Time between two calls of [`Translator::poll`] while sessions may expire.
const POLL_INTERVAL: Span = Span(250);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::nat::policy::limits::Limits;
    use crate::nat::policy::rules::Policy;
    use crate::nat::seed::Seed;
    use crate::nat::translator::Translator;
    use crate::nat::verdict::DropReason;
    use crate::packet::{Protocol, VecFrames, builder};
    use crate::time::Tick;

    #[test]
    fn held_fragments_keep_the_worker_polling_until_they_expire() {
        let inside = "10.0.0.0/24".parse().expect("a prefix");
        let limits = Limits::new(inside);
        let lifetime = limits.timeouts.fragment;
        let policy = Policy::one_uplink(inside, Ipv4Addr::new(203, 0, 113, 10));
        let nat = Translator::new(limits, policy, 1, Seed::from(1), Tick(0)).expect("memory");
        let mut context = nat.worker(0);
        let mut frames = VecFrames::new();
        assert_eq!(nat.poll(&mut context, &mut frames, Tick(0)), None);
        let tuple = builder::tuple(Protocol::UDP, ([10, 0, 0, 5], 5000), ([192, 0, 2, 1], 53));
        let fragments = builder::fragments(&builder::udp(tuple, &[0; 100]), 64);
        frames.push(&fragments[1]);
        nat.process(&mut context, &mut frames, Tick(0));
        let (mut now, mut polls) = (Tick(0), 0);
        while let Some(due) = nat.poll(&mut context, &mut frames, now) {
            assert!(due.since(now).0 > 0, "nothing else is due");
            now = due;
            polls += 1;
            assert!(polls < 1000, "the fragment never expires");
        }
        assert!(now.since(Tick(0)) >= lifetime, "polling ended at {now:?}");
        assert_eq!(context.counters.drops.of(DropReason::FragmentTimeout), 1);
    }
}
