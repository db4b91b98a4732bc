//! Makes inputs without a fuzzer: changes those of the corpus, joins them, and draws new ones.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A source of inputs for one target. The same seed gives the same inputs.
pub(crate) struct Mutator<'a> {
    random: StdRng,
    corpus: &'a [Vec<u8>],
    /// Words of the target's language.
    words: &'a [&'a [u8]],
}

impl<'a> Mutator<'a> {
    /// Makes a source of inputs from a corpus, which has at least one.
    pub(crate) fn new(seed: u64, corpus: &'a [Vec<u8>], words: &'a [&'a [u8]]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), corpus, words }
    }

    /// Returns the next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = if self.random.random_ratio(1, 4) {
            let length = self.random.random_range(0..MAX_NEW);
            (0..length).map(|_| self.random.random()).collect()
        } else {
            self.known()
        };
        for _ in 0..self.random.random_range(0..8) {
            self.change(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn known(&mut self) -> Vec<u8> {
        self.corpus[self.random.random_range(0..self.corpus.len())].clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            input.push(self.random.random());
        }
        let at = self.random.random_range(0..input.len());
        let end = (at + self.random.random_range(1..32)).min(input.len());
        match self.random.random_range(0..12) {
            0 => input[at] ^= 1 << self.random.random_range(0..8),
            1 => input[at] = self.random.random(),
            2 => input[at] = INTERESTING[self.random.random_range(0..INTERESTING.len())],
            3 => {
                let step = self.random.random_range(1..36);
                let up: bool = self.random.random();
                let new =
                    if up { input[at].wrapping_add(step) } else { input[at].wrapping_sub(step) };
                input[at] = new;
            }
            4 => input.truncate(at),
            5 => drop(input.drain(at..end)),
            6 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            7 => {
                // Two steps of a scenario change their places.
                let to = self.random.random_range(0..=input.len() - (end - at));
                let part: Vec<u8> = input.drain(at..end).collect();
                input.splice(to..to, part);
            }
            8 => {
                let other = self.known();
                let from = self.random.random_range(0..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            9 => {
                let other = self.known();
                let from = self.random.random_range(0..=other.len());
                let to = (from + 40).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            10 if !self.words.is_empty() => {
                let word = self.words[self.random.random_range(0..self.words.len())];
                input.splice(at..at, word.iter().copied());
            }
            _ => {
                let new: [u8; 4] = self.random.random();
                input.splice(at..at, new);
            }
        }
    }
}

/// Values at which lengths and counts go wrong.
const INTERESTING: [u8; 9] = [0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];
/// Most bytes of an input that is drawn.
const MAX_NEW: usize = 600;
/// Most bytes of an input.
const MAX_INPUT: usize = 1 << 16;
