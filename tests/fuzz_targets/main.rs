//! Runs the bodies of the fuzz targets without a fuzzer: over their corpus, and over mutations of
//! it for a time.
//!
//! | variable             | meaning                                                               |
//! |----------------------|-----------------------------------------------------------------------|
//! | `NATBOX_FUZZ_SECONDS` | time for each target, 2 by default; two targets run at once          |
//! | `NATBOX_FUZZ_SEED`   | a number that chooses the mutations                                   |
//! | `NATBOX_BLESS=1`     | writes the seeds of the corpus                                        |
//!
//! `fuzz/run` runs the same bodies with a fuzzer that follows coverage.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]
#![allow(clippy::print_stdout, reason = "each target reports its seed and its number of inputs")]

mod mutator;
mod seeds;
#[allow(unreachable_pub, reason = "a library for cargo-fuzz")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutator::Mutator;
use targets::{TARGETS, Target};

/// The folder of a target's corpus.
fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a target's corpus with their names, sorted.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).unwrap_or_else(|error| {
        panic!("{target} has no corpus ({error}); run: just bless");
    });
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), fs::read(file).unwrap())).collect()
}

/// A number from the environment.
fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}: found {text}, wanted a number"))
    })
}

/// The target of a name.
fn named(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target")
}

/// Runs a target over its corpus, and over mutations of it until its time is over.
fn fuzz(name: &str) {
    let target = named(name);
    let corpus: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, input)| input).collect();
    let seed = number("NATBOX_FUZZ_SEED", DEFAULT_SEED);
    let time = Duration::from_secs(number("NATBOX_FUZZ_SECONDS", 2));
    let mut mutator = Mutator::new(seed, &corpus, seeds::words(name));
    corpus.iter().for_each(|input| run(target, input, seed));
    let (started, mut inputs) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        run(target, &mutator.next(), seed);
        inputs += 1;
    }
    let seconds = started.elapsed().as_secs();
    println!(
        "{name}: {} of the corpus, {inputs} mutations in {seconds} s, seed {seed}",
        corpus.len()
    );
}

/// Runs a target over an input. If the target panics, keeps the input in a file.
fn run(target: &Target, input: &[u8], seed: u64) {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let is_slow = started.elapsed() > MAX_TIME;
    if outcome.is_ok() && !is_slow {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(target.name);
    let fails = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err();
    let input = if is_slow { input.to_vec() } else { shorten(input.to_vec(), fails) };
    fs::write(&file, input).unwrap();
    let what = if is_slow { "is too slow" } else { "fails" };
    panic!(
        "{} {what} (seed {seed}); the input is {}: copy it to {}/found-NAME, and fix the cause",
        target.name,
        file.display(),
        self::folder(target.name).display()
    );
}

/// Removes parts of an input as long as it still fails.
fn shorten(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            shorter.drain(at..(at + size).min(input.len()));
            if fails(&shorter) {
                input = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    input
}

macro_rules! targets {
    ($($test:ident: $target:literal,)+) => {
        $(
            #[test]
            fn $test() {
                fuzz($target);
            }
        )+

        #[test]
        fn every_target_is_run_and_is_a_target_of_the_fuzzer() {
            let run = [$($target),+];
            assert_eq!(TARGETS.each_ref().map(|target| target.name), run);
            let manifest = fs::read_to_string(folder("").join("../Cargo.toml")).unwrap();
            for name in run {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

targets! {
    each_line_of_an_admin_client_is_read_as_the_protocol_says: "admin",
    any_text_is_a_configuration_or_has_problems: "config",
    any_dns_message_gets_a_whole_answer_or_none: "dns",
    no_answer_to_an_update_is_believed_without_the_key: "dns_update",
    batches_leave_right_and_accounted_for: "engine",
    fragments_leave_whole_and_without_overlaps: "fragments",
    icmp_errors_reach_the_sender_of_their_quote: "icmp_errors",
    any_session_files_are_adopted_or_dropped: "kept_sessions",
    packets_that_parse_survive_a_rewrite: "parse",
    sequences_of_packets_leave_well_formed_and_as_decided: "translate",
    any_virtio_header_is_dropped_or_safe: "virtio",
}

/// Seed without `NATBOX_FUZZ_SEED`: a run depends on the sources alone.
const DEFAULT_SEED: u64 = 4787;
/// Longest time for one input. Far less is usual.
const MAX_TIME: Duration = Duration::from_secs(5);
