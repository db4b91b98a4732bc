//! The RFCs' requirements for a NAT, each row proven by a test on the real process.
//!
//! A test begins with [`proves`], which names its rows, and writes its outcome to a file. The
//! target `conformance` makes CONFORMANCE.md from all outcomes (`netns-tests/run --conformance`).
//! The same tests run in several variants of offload and workers (see [`crate::probe::Setup`]).

mod checksums;
mod filtering;
mod fragments;
mod hairpin;
mod headers;
mod icmp_errors;
mod icmp_queries;
mod limits;
mod logging;
mod malformed;
mod mapping;
mod ports;
mod rows;
mod security;
mod tcp;
mod threads;
mod timers;

use std::fs;
use std::path::PathBuf;

use crate::probe::setup;

/// A record of a test's rows. Its drop writes whether the test passed.
pub(crate) struct Proof {
    ids: &'static [&'static str],
}

/// Names the rows that the test proves. Keep the value until the end of the test.
#[must_use = "the proof is noted when this is dropped"]
pub(crate) fn proves(ids: &'static [&'static str]) -> Proof {
    for id in ids {
        let mut rows = rows::CHAPTERS.iter().flat_map(|(_, rows)| *rows);
        assert!(rows.any(|row| row.ids.contains(id)), "{id} is no row of the conformance table");
    }
    Proof { ids }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let name = std::thread::current().name().expect("libtest names its threads").to_owned();
        let (offload, workers) = setup::variant();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance");
        let outcome = if std::thread::panicking() { "fail" } else { "pass" };
        let file = directory.join(format!("{}.{offload}-{workers}", name.replace("::", ".")));
        let text = format!("{name}\n{outcome}\n{}\n", self.ids.join(" "));
        if let Err(error) = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, text)) {
            // No panic here, because another one may be in progress. The table will miss the proof.
            #[allow(clippy::print_stderr, reason = "libtest shows it with the test")]
            {
                eprintln!("{}: {error}", file.display());
            }
        }
    }
}
