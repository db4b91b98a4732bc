//! Runs the bodies of the fuzz targets over their corpus and over random input, without a fuzzer.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../fuzz/src/parse.rs"]
mod parse;
#[path = "../fuzz/src/translate.rs"]
mod translate;

const RANDOM_INPUTS: usize = 1000;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(folder).expect("each target has a corpus");
    let inputs: Vec<_> = files
        .map(|file| fs::read(file.expect("a file").path()).expect("a file of the corpus"))
        .collect();
    assert!(!inputs.is_empty());
    inputs
}

#[test]
fn packets_that_parse_survive_a_rewrite() {
    let inputs = corpus("parse");
    let mut random = StdRng::seed_from_u64(1);
    for input in &inputs {
        parse::run(input);
        for _ in 0..RANDOM_INPUTS {
            let mut changed = input.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..changed.len());
                changed[at] = random.random();
            }
            changed.truncate(random.random_range(0..=changed.len()));
            parse::run(&changed);
        }
    }
}

#[test]
fn sequences_of_packets_leave_well_formed_and_as_decided() {
    corpus("translate").iter().for_each(|input| translate::run(input));
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..RANDOM_INPUTS {
        let length = random.random_range(0..600);
        let input: Vec<u8> = (0..length).map(|_| random.random()).collect();
        translate::run(&input);
    }
}
