//! A process that lists the rules of nftables for a running instance, which may start no programs.
//!
//! ```text
//!   instance ── a number, a line ──▶ lister ──▶ nft
//!            ◀── a RuleListing, a JSON line ──
//! ```
//!
//! natbox starts the lister before it drops privileges. The lister ends when the pipe closes, for
//! whatever reason the instance ended.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use serde::{Deserialize, Serialize};

use super::facts::firewall;

/// The command of `natbox` that makes a process the lister.
pub(crate) const LISTER_COMMAND: &str = "list-rules";

/// An answer of the lister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RuleListing {
    /// The rules, as nft prints them in JSON, or the reason why there are none.
    Listed {
        /// Number of the request.
        request: u64,
        /// The rules.
        rules: Result<String, String>,
    },
    /// No answer: this process has replaced one that ended, and knows no earlier request.
    TakenOver,
}

/// Does the lister's work: lists the rules for each number that it reads from `requests`, until the
/// pipe closes. `taken_over`: whether another process did this work before.
///
/// # Errors
/// A request cannot be read, or an answer cannot be written.
pub(crate) fn list_rules(
    requests: impl Read,
    mut answers: impl Write,
    taken_over: bool,
) -> io::Result<()> {
    if taken_over {
        write(&mut answers, &RuleListing::TakenOver)?;
    }
    for request in BufReader::new(requests).lines() {
        let request = request?.parse().map_err(io::Error::other)?;
        write(&mut answers, &RuleListing::Listed { request, rules: firewall::list() })?;
    }
    Ok(())
}

fn write(answers: &mut impl Write, listing: &RuleListing) -> io::Result<()> {
    let mut line = serde_json::to_string(listing)?;
    line.push('\n');
    answers.write_all(line.as_bytes())?;
    answers.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_one_line() {
        let mut answers = Vec::new();
        list_rules(&b"7\n8\n"[..], &mut answers, true).unwrap();
        let lines: Vec<RuleListing> = String::from_utf8(answers)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let numbers = lines.iter().map(|line| match line {
            RuleListing::Listed { request, .. } => *request,
            RuleListing::TakenOver => 0,
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 7, 8]);
    }
}
