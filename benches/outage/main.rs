//! The gap that a flow of datagrams sees when natbox is killed or restarted (`state.keep`).
//! `benches/restart` runs it.
//!
//! ```text
//!   sender, numbers in order ──▶ natbox ──▶ receiver, notes the time of each number
//!                                  ▲
//!                killed or stopped, and started again at once, by this program
//! ```
//!
//! The gap of a round is the longest time between two datagrams that arrive. Of the gap, the end is
//! the time that the old process takes to end after its signal. The rest is the start of the next
//! process. This program is the supervisor and adds nothing of its own.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use flow::Flow;
use statistics::quantile;
use testbed::{End, Testbed};

mod flow;
#[path = "../comparison/statistics.rs"]
#[expect(dead_code, reason = "benches/comparison uses the rest")]
mod statistics;
mod testbed;

/// Measures the gap in a flow of datagrams.
#[derive(Parser)]
#[command(name = "benches/restart")]
struct Arguments {
    /// Rounds of each kind.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Datagrams a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u32,
    /// Other sessions in the table.
    #[arg(long, default_value_t = 0)]
    sessions: u32,
    /// Further keys of natbox's `tun` section, such as `workers: 1, io: poll`.
    #[arg(long, default_value = "")]
    tun: String,
    /// Directory for results.json.
    #[arg(long, default_value = "target/restart")]
    output: PathBuf,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one round has shown.
struct Round {
    gap: Duration,
    end: Duration,
    sent: u64,
    lost: u64,
    out_of_order: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut testbed = Testbed::new(&arguments.tun, arguments.sessions)?;
    let mut results = Vec::new();
    let mut rounds = KINDS.map(|_| Vec::new());
    for number in 0..arguments.rounds {
        for (end, rounds) in KINDS.iter().zip(&mut rounds) {
            let round = measure(&mut testbed, *end, arguments.rate);
            rounds.push(round.with_context(|| format!("round {number}, {}", name(*end)))?);
        }
    }
    for (end, rounds) in KINDS.iter().zip(&rounds) {
        results.push(summary(*end, rounds));
    }
    let sessions = arguments.sessions;
    let report = json!({ "rate": arguments.rate, "sessions": sessions, "results": results });
    fs::create_dir_all(&arguments.output)?;
    let path = arguments.output.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(&report)?)?;
    print(&format!("\nwritten: {}", path.display()));
    Ok(())
}

/// What happens in the rounds, in turn. None: nothing. Then the gap is that of the machine itself.
const KINDS: [Option<End>; 3] = [None, Some(End::Killed), Some(End::Stopped)];

fn name(end: Option<End>) -> &'static str {
    end.map_or("running", End::name)
}

fn measure(testbed: &mut Testbed, end: Option<End>, rate: u32) -> Result<Round> {
    let flow = Flow::start(testbed, rate)?;
    std::thread::sleep(LEAD);
    let end = end.map_or(Ok(Duration::ZERO), |end| testbed.replace_box(end))?;
    std::thread::sleep(LEAD + TRAIL);
    let arrivals = flow.stop()?;
    testbed.wait_ready()?;
    Ok(Round {
        gap: arrivals.longest_gap(),
        end,
        sent: arrivals.sent,
        lost: arrivals.lost(),
        out_of_order: arrivals.out_of_order(),
    })
}

fn summary(end: Option<End>, rounds: &[Round]) -> serde_json::Value {
    let milliseconds = |pick: fn(&Round) -> Duration| {
        let mut values: Vec<f64> =
            rounds.iter().map(|round| pick(round).as_secs_f64() * 1000.).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (gap, ending) = (milliseconds(|round| round.gap), milliseconds(|round| round.end));
    let lost: Vec<u64> = rounds.iter().map(|round| round.lost).collect();
    let (most, all) = (lost.iter().max().copied().unwrap_or(0), lost.iter().sum::<u64>());
    let sent: u64 = rounds.iter().map(|round| round.sent).sum();
    let out_of_order: u64 = rounds.iter().map(|round| round.out_of_order).sum();
    print(&format!(
        "{:8} {} rounds: gap p50 {:.1} p90 {:.1} p99 {:.1} max {:.1} ms, of which the end of the \
         process p50 {:.1} max {:.1} ms; lost {all} of {sent}, at most {most} in a round; \
         out of order {out_of_order}",
        name(end),
        rounds.len(),
        quantile(&gap, 0.5),
        quantile(&gap, 0.9),
        quantile(&gap, 0.99),
        quantile(&gap, 1.),
        quantile(&ending, 0.5),
        quantile(&ending, 1.),
    ));
    json!({
        "end": name(end),
        "gap_ms": gap,
        "process_end_ms": ending,
        "lost": lost,
        "sent": sent,
        "out_of_order": out_of_order,
    })
}

#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
fn print(line: &str) {
    println!("{line}");
}

/// Time for which the flow runs before a process ends.
const LEAD: Duration = Duration::from_millis(100);
/// Time after the start of the next process, beyond [`LEAD`].
const TRAIL: Duration = Duration::from_millis(400);

/// The end of a wait that should be short.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}
