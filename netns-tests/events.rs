//! `natbox events`: followers and later readers get the events in order.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use natbox::api::{Event, EventKind};
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::ThreeLeggedPlan;
use rustix::process::Signal;

use crate::failover::set_carrier;
use crate::lab::{NATBOX, Site, output, wait_for};

fn events(natbox: &NatBox, arguments: &[&str]) -> Command {
    let mut command = Command::new(NATBOX);
    command.arg("events").arg("--socket").arg(natbox.socket()).args(arguments);
    command
}

/// A process `natbox events --follow` and its output. The process ends with its box.
struct Follower {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(natbox: &NatBox) -> Result<Follower> {
        let mut command = events(natbox, &["--follow", "--json"]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(process.stdout.take().context("its output")?);
        Ok(Follower { process, lines })
    }

    fn next(&mut self) -> Result<EventKind> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let event: Event = serde_json::from_str(&line).with_context(|| format!("{line:?}"))?;
        Ok(event.kind)
    }

    fn expect(&mut self, wanted: &EventKind) -> Result<()> {
        let found = self.next()?;
        ensure!(found == *wanted, "{found:?} instead of {wanted:?}");
        Ok(())
    }
}

#[test]
fn followers_and_later_readers_get_the_same_events_in_order() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let mut natbox = site.start(0, &site.three_legged_config())?;
    let name = natbox.status()?.name;
    let mut follower = Follower::start(&natbox)?;
    // Recent events come first.
    follower.expect(&EventKind::Ready { name: name.clone() })?;

    let (uplink, interface) = ("isp2".to_owned(), site.uplink(1).interface.clone());
    set_carrier(site.uplink(1), false)?;
    follower.expect(&EventKind::InterfaceDown { interface: interface.clone() })?;
    let failed = follower.next()?;
    ensure!(
        matches!(&failed, EventKind::UplinkFailed { uplink: failed, .. } if *failed == uplink),
        "{failed:?}"
    );
    set_carrier(site.uplink(1), true)?;
    follower.expect(&EventKind::InterfaceUp { interface })?;
    follower.expect(&EventKind::UplinkHealthy { uplink })?;

    output({
        let mut reload = Command::new(NATBOX);
        reload.arg("reload").arg("--socket").arg(natbox.socket());
        reload
    })?;
    follower.expect(&EventKind::Reloaded { changed: Vec::new(), sessions_ended: 0 })?;

    let recent = output(events(&natbox, &[]))?;
    let sentences: Vec<&str> =
        recent.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    ensure!(sentences.len() == 6, "{recent}");
    ensure!(
        sentences[0] == format!("{name} is ready") && sentences[4] == "uplink isp2 is healthy",
        "{recent}"
    );
    ensure!(sentences[2].starts_with("uplink isp2 failed: no carrier"), "{recent}");

    natbox.process().signal(Signal::TERM)?;
    follower.expect(&EventKind::Stopping { signal: "TERM".to_owned() })?;
    let ended = Instant::now();
    let status =
        wait_for("the follower to end with its box", || Ok(follower.process.try_wait()?))?;
    ensure!(status.success(), "{status} after {:?}", ended.elapsed());
    Ok(())
}

/// `natbox events --follow | head -1`, and a follower that never reads.
#[test]
fn followers_that_do_not_read_block_nothing() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let natbox = site.start(0, &site.three_legged_config())?;
    let mut gone = Follower::start(&natbox)?;
    gone.next()?;
    let Follower { mut process, lines } = gone;
    drop(lines);
    let mut idle = Follower::start(&natbox)?;
    for _ in 0..1200 {
        let mut reload = UnixStream::connect(natbox.socket())?;
        reload.write_all(b"{\"command\":\"reload\"}\n")?;
        let mut answer = String::new();
        BufReader::new(reload).read_line(&mut answer)?;
        ensure!(answer.contains("changed"), "{answer}");
    }
    let ended = wait_for("the end of the one without a reader", || Ok(process.try_wait()?))?;
    ensure!(ended.success(), "{ended}");
    ensure!(output(events(&natbox, &[]))?.lines().count() == 1000);
    idle.process.kill()?;
    idle.process.wait()?;
    Ok(())
}
