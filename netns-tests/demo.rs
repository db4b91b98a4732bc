//! `natbox demo` as a process. Only the unique names separate the namespaces and files of
//! concurrent demos, so that these tests can run beside any other.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use natbox::lab::Lab;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{NATBOX, wait_for};

fn demo(arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(NATBOX);
    command
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().context("start natbox demo")
}

/// Returns the namespaces, the journal and the directory of the demo with this pid.
fn traces(pid: u32) -> Vec<PathBuf> {
    let name = format!("nbdemo-{pid}-");
    let directories =
        ["/run/netns", "/run/natbox"].into_iter().filter_map(|path| fs::read_dir(path).ok());
    let entries = directories.flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains(&name)).collect()
}

/// Returns the processes whose command line names a file of this demo.
fn processes(pid: u32) -> Vec<u32> {
    let name = format!("/nbdemo-{pid}-");
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&name))
    })
    .collect()
}

/// Waits until both boxes run.
fn wait_until_boxes_run(pid: u32) -> Result<()> {
    wait_for("the demo's boxes", || Ok((processes(pid).len() == 2).then_some(())))
}

fn send(process: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.id().cast_signed()).context("no pid")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn demo_reports_added_bandwidth_of_two_uplinks() -> Result<()> {
    let demo = demo(&["--json", "--rate", "40", "--seconds", "2"])?;
    let pid = demo.id();
    let output = demo.wait_with_output()?;
    let progress = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}\n{progress}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["ratio"].as_f64().is_some_and(|ratio| (1.95..2.1).contains(&ratio)), "{report}");
    ensure!(
        report["wrong_line_replies"] == 0 && report["client_addresses_preserved"] == true,
        "{report}"
    );
    ensure!(
        report["together_mbit"].as_f64().is_some_and(|rate| (72.0..84.0).contains(&rate)),
        "{report}"
    );
    ensure!(report["sessions"].as_u64().is_some_and(|sessions| sessions >= 60), "{report}");
    ensure!(report["capture_missed"] == 0, "{report}");
    for line in report["lines"].as_array().context("no lines")? {
        ensure!(
            line["share_together"].as_f64().is_some_and(|share| (0.45..0.55).contains(&share)),
            "{report}"
        );
        ensure!(
            line["alone_mbit"].as_f64().is_some_and(|rate| rate > 35.0) && line["name"].is_string(),
            "{report}"
        );
    }
    ensure!(!progress.contains('\x1b'), "control codes without a terminal");
    ensure!(traces(pid).is_empty() && processes(pid).is_empty(), "left: {:?}", traces(pid));
    Ok(())
}

#[test]
fn three_legged_demo_reports_added_bandwidth() -> Result<()> {
    // Options before and after the scenario's name.
    let demo = demo(&["--json", "three-legged", "--rate", "40", "--seconds", "2"])?;
    let pid = demo.id();
    let output = demo.wait_with_output()?;
    let (report, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{progress}{report}", output.status);
    ensure!(progress.matches(" run --config ").count() == 1, "more than one box: {progress}");
    let report: Value = serde_json::from_str(&report)?;
    ensure!(report["story"] == "three-legged" && report["lines_count"] == 2, "{report}");
    ensure!(report["ratio"].as_f64().is_some_and(|ratio| (1.95..2.1).contains(&ratio)), "{report}");
    ensure!(
        report["together_mbit"].as_f64().is_some_and(|rate| (72.0..84.0).contains(&rate)),
        "{report}"
    );
    ensure!(report["wrong_line_replies"] == 0 && report["capture_missed"] == 0, "{report}");
    ensure!(report["client_addresses_preserved"] == true, "{report}");
    ensure!(report["sessions"].as_u64().is_some_and(|sessions| sessions >= 60), "{report}");
    for line in report["lines"].as_array().context("no lines")? {
        ensure!(line["server"] == "10.0.0.101", "the server has one address: {report}");
        ensure!(line["alone_mbit"].as_f64().is_some_and(|rate| rate > 35.0), "{report}");
        ensure!(line["replies"].as_u64().is_some_and(|replies| replies > 1000), "{report}");
    }
    ensure!(traces(pid).is_empty() && processes(pid).is_empty(), "left: {:?}", traces(pid));
    Ok(())
}

#[test]
fn failover_demo_reports_loss_only_on_the_failed_uplink() -> Result<()> {
    let demo = demo(&["failover", "--json", "--rate", "20", "--seconds", "1"])?;
    let pid = demo.id();
    let output = demo.wait_with_output()?;
    let (report, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{progress}{report}", output.status);
    let report: Value = serde_json::from_str(&report)?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("{key}: {report}"));
    ensure!(report["story"] == "failover" && number("lines_count")? == 2.0, "{report}");
    ensure!(
        number("lost_on_other_lines")? == 0.0 && number("datagrams_on_other_lines")? > 1000.0,
        "{report}"
    );
    ensure!(number("failed_requests_on_surviving_line")? == 0.0, "{report}");
    ensure!(number("requests_on_surviving_line")? > 100.0, "{report}");
    // Two of the three intervals must pass first.
    let seconds = number("seconds_to_new_line")?;
    ensure!((2.0..number("seconds_wanted")? + 0.4).contains(&seconds), "{report}");
    ensure!(
        number("wrong_line_replies")? == 0.0 && (1.9..2.1).contains(&number("ratio")?),
        "{report}"
    );
    ensure!(traces(pid).is_empty() && processes(pid).is_empty(), "left: {:?}", traces(pid));
    Ok(())
}

#[test]
fn demo_ended_by_a_signal_removes_everything() -> Result<()> {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut demo = demo(&["--rate", "20"])?;
        let pid = demo.id();
        wait_until_boxes_run(pid)?;
        send(&demo, signal)?;
        let status = wait_for("the demo to end", || Ok(demo.try_wait()?))?;
        ensure!(status.code() == Some(code), "{signal:?}: {status}");
        ensure!(traces(pid).is_empty() && processes(pid).is_empty(), "left: {:?}", traces(pid));
    }
    Ok(())
}

#[test]
fn demo_removes_the_remains_of_a_killed_demo() -> Result<()> {
    let mut killed = demo(&["--rate", "20"])?;
    let pid = killed.id();
    wait_until_boxes_run(pid)?;
    ensure!(!traces(pid).is_empty(), "there must be something to clean up");
    killed.kill()?;
    // Starts at once, while the kernel still ends the killed process.
    let mut next = demo(&["--rate", "20", "--seconds", "1"])?;
    killed.wait()?;
    let mut text = String::new();
    next.stdout.take().context("no output")?.read_to_string(&mut text)?;
    ensure!(next.wait()?.success(), "{text}");
    ensure!(traces(pid).is_empty() && processes(pid).is_empty(), "left: {:?}", traces(pid));
    Ok(())
}

/// A lab was killed between the start of a process and its journal entry. The process ran on in a
/// namespace without a name.
#[test]
fn next_lab_ends_a_process_that_a_killed_lab_had_not_recorded() -> Result<()> {
    let stem = format!("nbunnoted-{}-0", std::process::id());
    let namespace = format!("{stem}-box");
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status();
    ensure!(ip(&["netns", "add", &namespace])?.success());
    let mut sleeper =
        Command::new("ip").args(["netns", "exec", &namespace, "sleep", "600"]).spawn()?;
    let command_line = format!("/proc/{}/cmdline", sleeper.id());
    wait_for("the sleeper", || {
        Ok(fs::read_to_string(&command_line)?.starts_with("sleep").then_some(()))
    })?;
    fs::create_dir_all("/run/natbox")?;
    fs::write(
        format!("/run/natbox/lab-{stem}.json"),
        format!("{{\"namespace\":\"{namespace}\"}}\n"),
    )?;
    let _lab = Lab::new("nbnext")?;
    // The lab of another test may sweep at the same time.
    wait_for("the sleeper's end", || Ok(sleeper.try_wait()?))?;
    wait_for("the namespace's end", || {
        Ok((!Path::new("/run/netns").join(&namespace).exists()).then_some(()))
    })
}

#[test]
fn concurrent_demos_do_not_disturb_each_other() -> Result<()> {
    let options = ["--json", "--rate", "20", "--seconds", "1"];
    let both = [demo(&options)?, demo(&options)?];
    for demo in both {
        let output = demo.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}
