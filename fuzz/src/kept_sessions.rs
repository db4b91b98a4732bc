//! The files in which sessions outlive their process, with any bytes in them: the next translator
//! adopts what is whole, and works.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use natbox::nat::{
    Adopted, Contents, Limits, Seed, SessionFileSizes, SessionFiles, Translator, WorkerContext,
};
use natbox::packet::VecFrames;
use natbox::time::{Span, Tick};

use super::input::Input;
use super::packets::{self, Recent};
use super::{instance, world};

/// Opens sessions in files, changes the files, and lets another translator have them.
///
/// # Panics
/// If the other translator panics, does not come to an end, or keeps something that it has not.
pub fn run(data: &[u8]) {
    adopted(data);
}

/// Does the work of [`run`], and returns what the other translator has adopted.
///
/// # Panics
/// As [`run`].
pub fn adopted(data: &[u8]) -> Adopted {
    let mut input = Input::new(data);
    let limits = Limits { accounting: true, ..world::limits(&mut input) };
    let policy = world::policy(input.number());
    let files = files(&limits);
    let now = Tick(u32::MAX - 5000);
    let translator = |policy, now, contents| {
        Translator::in_files(limits.clone(), policy, 2, Seed::from(7), now, &files, contents)
            .expect("memory")
    };
    let mut recent = Recent::default();
    let nat = translator(policy.clone(), now, Contents::Empty);
    let mut context = nat.worker(0);
    for _ in 0..input.below(64) {
        send(&nat, &mut context, &mut input, &mut recent, now);
    }
    drop(nat);
    change(&mut input, &files);
    // The next process may have other rules.
    let policy = if input.once_in(4) { world::policy(input.number()) } else { policy };
    let mut now = now.after(Span(u32::from(input.number())));
    let nat = translator(policy, now, Contents::Inherited);
    let mut context = nat.worker(0);
    let budget = 1 + u32::from(input.byte()) * 4;
    // The table has the records of the limit and those in reserve.
    let mut slices = 4 * (u64::from(limits.sessions) + 1024) / u64::from(budget) + 4;
    let mut sum = Adopted::default();
    while nat.inherits() {
        assert!(slices > 0, "the adoption does not end");
        slices -= 1;
        sum += nat.adopt(0, budget, now);
        if !input.is_empty() {
            send(&nat, &mut context, &mut input, &mut recent, now);
        }
    }
    instance::list(&nat);
    while !input.is_empty() {
        now = now.after(Span(u32::from(input.byte()) * 16));
        poll(&nat, &mut context, now);
        send(&nat, &mut context, &mut input, &mut recent, now);
    }
    instance::list(&nat);
    finish(&nat, &mut context, now);
    sum
}

/// Sends a packet through a translator.
fn send(
    nat: &Translator,
    context: &mut WorkerContext,
    input: &mut Input<'_>,
    recent: &mut Recent,
    now: Tick,
) {
    let mut frames = VecFrames::new();
    frames.push(&packets::packet(input, recent));
    nat.process(context, &mut frames, now);
    frames.take_sent().iter().for_each(|(packet, _)| recent.note(packet));
}

fn poll(nat: &Translator, context: &mut WorkerContext, now: Tick) {
    let mut frames = VecFrames::new();
    while nat.poll(context, &mut frames, now) == Some(now) {}
}

/// Checks that every session and mapping ends, and that the whole table is of use again.
fn finish(nat: &Translator, context: &mut WorkerContext, mut now: Tick) {
    let mut other = nat.worker(1);
    // A record's own time may be any.
    for _ in 0..60 {
        now = now.after(Span::MAX);
        poll(nat, context, now);
        poll(nat, &mut other, now);
    }
    assert_eq!((nat.table().len(), nat.mappings()), (0, 0), "sessions and mappings are left");
}

/// Makes files for a table, all zeros.
fn files(limits: &Limits) -> SessionFiles {
    let SessionFileSizes { records, index, accounts } =
        SessionFileSizes::of(limits.sessions, limits.accounting).expect("sizes");
    SessionFiles { records: file(records), index: file(index), accounts: file(accounts) }
}

fn file(bytes: u64) -> File {
    let descriptor = rustix::fs::memfd_create("sessions", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(descriptor.expect("memory"));
    file.set_len(bytes).expect("memory");
    file
}

/// Changes bytes of the files, near those that are not zero or anywhere.
fn change(input: &mut Input<'_>, files: &SessionFiles) {
    for _ in 0..input.below(32) {
        let file = input.pick(&[&files.records, &files.records, &files.index, &files.accounts]);
        let length = file.metadata().expect("memory").len();
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).expect("memory");
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let place = usize::from(input.number());
        let at = match used.len() {
            0 => place % bytes.len(),
            count if input.once_in(4) => (used[place % count] + input.below(64)) % bytes.len(),
            count => used[place % count],
        };
        match input.below(4) {
            0 => bytes[at] ^= 1 << (input.byte() % 8),
            1 => bytes[at] = input.byte(),
            2 => {
                let new = input.bytes(8);
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            _ => {
                // A record or a bucket stands in another place as well.
                let other = usize::from(input.number()) * 64 % bytes.len();
                let (from, to) = (at & !63, other & !63);
                if from.max(to) + 64 <= bytes.len() {
                    bytes.copy_within(from..from + 64, to);
                }
            }
        }
        file.write_all_at(&bytes, 0).expect("memory");
    }
}
