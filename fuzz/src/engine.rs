//! A sequence of batches through a whole worker, between changes of the policy, of the uplinks and
//! of the clock.

use natbox::nat::{AdmitNew, Counters, EndReason, Filter, TableCursor};
use natbox::packet::builder;
use natbox::time::Span;

use super::input::{Input, damage};
use super::instance::Instance;
use super::{packets, world};

/// Runs the batches of the input through a worker with the limits and the policy of the input.
///
/// # Panics
/// If a packet leaves that must not, or something vanishes or is left over.
pub fn run(data: &[u8]) {
    counters(data);
}

/// Does the work of [`run`], and returns the counters of the worker.
///
/// # Panics
/// As [`run`].
pub fn counters(data: &[u8]) -> Counters {
    let mut input = Input::new(data);
    let limits = world::limits(&mut input);
    let policy = world::policy(input.number());
    let kind = input.byte();
    let mut instance = Instance::new(limits, policy, if kind & 1 == 0 { 64 } else { 3 });
    // Without damaged packets the checks are stricter.
    let damages = kind & 6 == 6;
    while !input.is_empty() {
        match input.below(16) {
            0 => {
                let span = Span(u32::from(input.number()));
                instance.wait(span);
            }
            1 => event(&mut input, &mut instance),
            _ => {
                for _ in 0..=input.below(6) {
                    push(&mut input, &mut instance, damages);
                }
                instance.run();
            }
        }
    }
    instance.finish()
}

/// Does what the control plane may do at any time.
fn event(input: &mut Input<'_>, instance: &mut Instance) {
    let now = instance.now;
    let uplink = input.byte() & 1;
    match input.below(6) {
        0 => drop(instance.queue().change_policy(world::policy(input.number()), now)),
        1 => {
            let admit = input.pick(&[AdmitNew::All, AdmitNew::None, AdmitNew::KnownEndpoints]);
            instance.queue().translator().set_admission(uplink, admit);
        }
        2 => instance.queue().translator().set_last_resort(uplink, input.byte() & 1 == 1),
        3 => instance.queue().translator().set_uplink_mtu(uplink, 68 + input.number() % 1433),
        4 => instance.queue().translator().set_leg_mtu(uplink.into(), 68 + input.number() % 1433),
        _ => {
            let filter = Filter { uplink: Some(uplink), ..Filter::default() };
            let (nat, from) = (instance.queue().translator(), TableCursor::default());
            nat.end_matching(&filter, EndReason::Requested, from, now);
        }
    }
    instance.wait(Span(1));
}

/// Queues a packet, sometimes with a checksum or a segmentation that is left to the device.
fn push(input: &mut Input<'_>, instance: &mut Instance, damages: bool) {
    let mut packet = packets::packet(input, &instance.recent);
    let mut header = [0; 10];
    if input.once_in(4) && packet[0] == 0x45 && packet[6] & 0x3f == 0 && packet[7] == 0 {
        let offset = match packet[9] {
            6 if packet.len() >= 40 => 16,
            17 if packet.len() >= 28 && packet[26..28] != [0, 0] => 6,
            _ => 0,
        };
        if offset != 0 {
            builder::make_partial(&mut packet);
            let size = input.byte() | 1;
            let kind = if packet[9] == 6 { 1 } else { 5 };
            header = [1, 0, 0, 0, 0, 0, 20, 0, offset, 0];
            if input.once_in(2) {
                (header[1], header[2], header[4]) = (kind, 28, size);
            }
        }
    }
    if damages && input.once_in(4) {
        damage(&mut packet, input);
        if input.once_in(2) && packet.len() >= 20 {
            builder::refresh_header_checksum(&mut packet);
        }
    }
    instance.push(&header, &packet);
}
