//! One batch: parse all, hash all and fetch their buckets, fetch their records, translate each, send.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::io::{BATCH, Frame, Offload, PacketIo};
use crate::nat::{Counters, DropReason, Key, KeyHash, Packet, Translator, Verdict, WorkerContext};
use crate::packet::{ChecksumMode, IcmpError, Parsed, Payload, parse};
use crate::time::Tick;

/// The stages of a batch, with the room they need; belongs to one worker.
pub struct Pipeline {
    nat: Arc<ArcSwap<Translator>>,
    lane: WorkerContext,
    stages: Box<[Stage; BATCH]>,
    bad_headers: u64,
}

/// How far a frame has come.
#[derive(Clone, Copy)]
enum Stage {
    Dropped(DropReason),
    Classified {
        parsed: Parsed,
        key: Key,
        hash: KeyHash,
    },
    Error {
        parsed: Parsed,
        error: IcmpError,
    },
    Fragment {
        parsed: Parsed,
    },
    /// Without a tuple and neither an ICMP error nor a fragment: not translated, for this reason, unless it is the host's own.
    Untranslatable {
        parsed: Parsed,
        reason: DropReason,
    },
}

impl Pipeline {
    /// The batch room of a worker. Every batch is translated by the translator of its beginning.
    pub fn new(nat: Arc<ArcSwap<Translator>>, lane: WorkerContext) -> Self {
        Self {
            nat,
            lane,
            stages: Box::new([Stage::Dropped(DropReason::NotIpv4); BATCH]),
            bad_headers: 0,
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.lane.counters
    }

    /// Translates and sends the first `frames` frames that `io` has received.
    ///
    /// # Errors
    /// Those of [`PacketIo::flush`].
    pub fn process(
        &mut self,
        io: &mut impl PacketIo,
        frames: usize,
        now: Tick,
    ) -> std::io::Result<()> {
        let nat = self.nat.load();
        for index in 0..frames {
            self.stages[index] = self.parse(&nat, &io.frame(index));
        }
        for stage in &self.stages[..frames] {
            if let Stage::Classified { hash, .. } = stage {
                nat.table().prefetch_record(*hash);
            }
        }
        for index in 0..frames {
            self.translate(&nat, io, index, now);
        }
        self.flush(io)?;
        let counters = &mut self.lane.counters;
        counters.drops.count(DropReason::BadVnetHeader, io.bad_vnet_headers() - self.bad_headers);
        self.bad_headers = io.bad_vnet_headers();
        counters.batches += u64::from(frames != 0);
        Ok(())
    }

    /// Takes a slice of the expiry work, and sends what was due at this time; true when nothing more is due.
    ///
    /// # Errors
    /// Those of [`PacketIo::flush`].
    pub fn expire(&mut self, io: &mut impl PacketIo, now: Tick) -> std::io::Result<bool> {
        let done = self.nat.load().expire(&mut self.lane, now);
        if !self.lane.outbox.is_empty() {
            self.release(io);
            self.flush(io)?;
        }
        Ok(done)
    }

    /// Sends what was put aside.
    fn release(&mut self, io: &mut impl PacketIo) {
        for packet in self.lane.outbox.drain(..) {
            self.lane.counters.bytes_out += packet.len() as u64;
            io.send(&packet, Offload::default());
        }
    }

    fn flush(&mut self, io: &mut impl PacketIo) -> std::io::Result<()> {
        let flushed = io.flush()?;
        let counters = &mut self.lane.counters;
        counters.packets_out += u64::from(flushed.sent);
        counters.drops.count(DropReason::TunWriteError, u64::from(flushed.rejected));
        Ok(())
    }

    #[inline]
    fn parse(&mut self, nat: &Translator, frame: &Frame<'_>) -> Stage {
        self.lane.counters.packets_in += 1;
        self.lane.counters.bytes_in += frame.length as u64;
        let bytes = &frame.buffer[..frame.length];
        let parsed = match parse(bytes, checksum_mode(frame.offload, bytes)) {
            Ok(parsed) => parsed,
            Err(malformed) => return Stage::Dropped(malformed.into()),
        };
        match parsed.tuple() {
            Some(tuple) => {
                let key = Key::of(tuple);
                let hash = nat.table().hash(key);
                nat.table().prefetch_index(hash);
                Stage::Classified { parsed, key, hash }
            }
            None => match parsed.payload() {
                Payload::IcmpError(error) => Stage::Error { parsed, error },
                Payload::Fragment { .. } => Stage::Fragment { parsed },
                Payload::IcmpOther { .. }
                | Payload::Tcp(_)
                | Payload::Udp
                | Payload::IcmpQuery(_)
                | Payload::Other => {
                    Stage::Untranslatable { parsed, reason: DropReason::UnsupportedIcmp }
                }
            },
        }
    }

    #[inline]
    fn translate(&mut self, nat: &Translator, io: &mut impl PacketIo, index: usize, now: Tick) {
        let (parsed, verdict, offload) = match &self.stages[index] {
            Stage::Dropped(reason) => return self.lane.counters.drops.count(*reason, 1),
            Stage::Classified { parsed, key, hash } => {
                let frame = io.frame(index);
                let wire_length = wire_length(parsed, frame.offload);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length };
                (parsed, nat.translate(&mut self.lane, packet, *key, *hash, now), frame.offload)
            }
            Stage::Error { parsed, error } => {
                let frame = io.frame(index);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length: parsed.length() };
                (parsed, nat.translate_error(&mut self.lane, packet, *error, now), frame.offload)
            }
            Stage::Fragment { parsed } => {
                let frame = io.frame(index);
                let packet = Packet { parsed, buffer: frame.buffer, wire_length: parsed.length() };
                (parsed, nat.translate_fragment(&mut self.lane, packet, now), frame.offload)
            }
            Stage::Untranslatable { parsed, reason } => (
                parsed,
                nat.untranslated_verdict(parsed.destination(), *reason),
                io.frame(index).offload,
            ),
        };
        let counters = &mut self.lane.counters;
        match verdict {
            Verdict::Translated => {
                counters.bytes_out += parsed.length() as u64;
                io.submit(index, parsed.length(), offload);
            }
            Verdict::PassToHost => {
                counters.passed_to_host += 1;
                counters.bytes_out += parsed.length() as u64;
                io.submit(index, parsed.length(), offload);
            }
            Verdict::Answer(length, reason) => {
                counters.drops.count(reason, 1);
                counters.icmp_errors_sent += 1;
                counters.bytes_out += length as u64;
                io.submit(index, length, Offload::default());
            }
            Verdict::Held => {}
            Verdict::Drop(reason) => counters.drops.count(reason, 1),
        }
        self.release(io);
    }
}

/// Whether the transport checksum of this very packet is left to be completed. An offset that points deeper, into a
/// packet inside this one, is none of our business: that packet is not rewritten.
#[inline]
fn checksum_mode(offload: Offload, bytes: &[u8]) -> ChecksumMode {
    let header_length = bytes.first().map_or(0, |byte| u16::from(byte & 0x0f) * 4);
    match offload.checksum {
        Some(partial) if partial.start == header_length => ChecksumMode::Partial,
        Some(_) | None => ChecksumMode::Complete,
    }
}

/// Length of the packet on the wire: for a super-packet that of one full segment.
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
