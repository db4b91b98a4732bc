//! The binary's exit codes and where it prints what.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::process::{Command, Output, Stdio};

const GOOD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/natbox1.yaml");

fn natbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natbox"));
    command.args(arguments).env_remove("RUST_BACKTRACE");
    command
}

fn outcome(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = natbox(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn check_says_ok_and_sums_up() {
    let summary = "natbox1: inside lan0, 1 uplink with 1 external address, 1 forward, 1 outbound rule, 1000000 sessions";
    assert_eq!(
        outcome(&["check", "--config", GOOD]),
        (Some(0), format!("{GOOD}: ok\n{summary}\n"), String::new())
    );
}

#[test]
fn check_names_every_problem_on_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yaml");
    fs::write(
        &path,
        "inside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplink: []\ntun: { io: pol }\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = outcome(&["check", "--config", path]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert!(lines[0].starts_with(&format!("{path}:1:1: uplinks: found no such key")));
    assert!(lines[1].starts_with(&format!("{path}:2:1: uplink: found an unknown key")));
    assert!(lines[2].starts_with(&format!("{path}:3:12: tun.io: found `pol`")));

    let (code, stdout, stderr) = outcome(&["check", "--json", "--config", path]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][2]["line"], 3);
    assert_eq!(report["problems"][2]["key"], "tun.io");
}

#[test]
fn config_prints_a_file_that_prints_the_same_again() {
    let (code, first, _) = outcome(&["config", "--config", GOOD]);
    assert_eq!(code, Some(0));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("again.yaml");
    fs::write(&path, &first).unwrap();
    assert_eq!(outcome(&["config", "--config", path.to_str().unwrap()]).1, first);
}

#[test]
fn config_prints_the_schema_and_a_reference_file_without_a_file() {
    let (code, schema, stderr) = outcome(&["config", "--schema"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["nat"]["properties"]["hairpin"]["default"], true);

    let (code, reference, stderr) = outcome(&["config", "--reference"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reference.yaml");
    fs::write(&path, &reference).unwrap();
    assert_eq!(outcome(&["check", "--config", path.to_str().unwrap()]).0, Some(0));
}

#[test]
fn wrong_arguments_are_the_users_error_and_help_is_none() {
    for arguments in [
        &["bogus"] as &[&str],
        &[],
        &["check"],
        &["check", "--config"],
        &["config", "--config", "/nope/x"],
        &["config"],
        &["config", "--schema", "--config", GOOD],
        &["config", "--schema", "--reference"],
        &["plan", "--config", GOOD, GOOD],
        &["status", "--name", "../x"],
        &["stand-by"],
    ] {
        let (code, stdout, stderr) = outcome(arguments);
        assert_eq!(
            (code, stdout.as_str(), stderr.is_empty()),
            (Some(1), "", false),
            "{arguments:?}"
        );
    }
    for arguments in [&["--help"] as &[&str], &["--version"], &["check", "--help"]] {
        let (code, stdout, stderr) = outcome(arguments);
        assert_eq!(
            (code, stdout.is_empty(), stderr.as_str()),
            (Some(0), false, ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn without_a_subcommand_the_visible_ones_are_listed() {
    let (_, _, stderr) = outcome(&[]);
    assert!(stderr.contains("Usage: natbox <COMMAND>") && stderr.contains("doctor"), "{stderr}");
    for hidden in ["run-hooks", "list-rules", "stand-by", "keep-descriptors", "preview-takeover"] {
        assert!(!stderr.contains(hidden), "{hidden} in {stderr}");
    }
}

#[test]
fn a_file_given_twice_and_a_name_of_no_instance_are_named() {
    let (_, _, stderr) = outcome(&["plan", "--config", GOOD, GOOD]);
    assert!(stderr.contains("the same file") && stderr.contains("leave one out"), "{stderr}");
    let (_, _, stderr) = outcome(&["status", "--name", "../x"]);
    assert!(stderr.contains("--name: found `../x`, wanted a name of 1 to 63"), "{stderr}");
}

#[test]
fn a_closed_pipe_is_fine_and_a_full_disk_is_the_environments_trouble() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(
        natbox(&["config", "--config", GOOD]).stdout(writer).status().unwrap().code(),
        Some(0)
    );

    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child =
        natbox(&["config", "--config", GOOD]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(stderr.starts_with("natbox: cannot write to standard output: "), "{stderr}");
}

/// Returns the words before the options of each command that has `--json`, from the help texts.
fn commands_with_json(before: &[&str]) -> Vec<Vec<String>> {
    let (_, help, _) = outcome(&[before, &["--help"]].concat());
    let own: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
    let mut found = Vec::new();
    if help.contains("--json") {
        found.push(own);
    }
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
        let Some(name) = name.and_then(|line| line.split_whitespace().next()) else { continue };
        if name != "help" {
            found.extend(commands_with_json(&[before, &[name]].concat()));
        }
    }
    found
}

/// Regression: `config` and `reload`, among others, answered errors as text.
#[test]
fn every_command_with_json_answers_errors_as_json() {
    let commands = commands_with_json(&[]);
    for name in ["check", "config", "plan", "status", "sessions", "events", "reload", "confirm"] {
        assert!(commands.iter().any(|command| *command == [name]), "{name} in {commands:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.yaml");
    fs::write(&bad, "uplink: []\n").unwrap();
    let (bad, missing) = (bad.to_str().unwrap(), "/nope/x");
    for command in &commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let (_, help, _) = outcome(&[&command[..], &["--help"]].concat());
        let mut failing = vec![vec!["--no-such-option"]];
        if help.contains("--socket") {
            let mut arguments = vec!["--socket", missing];
            match command[0] {
                "check" => arguments.extend(["--against-running", "--config", GOOD]),
                // A filter that selects all sessions, and no question.
                "kill" => arguments.extend(["--all", "--yes"]),
                "explain" => arguments.push("tcp 10.0.0.1:1 -> 192.0.2.1:80"),
                _ => {}
            }
            failing.push(arguments);
        }
        if help.contains("--config <FILE>") && command != ["explain"] {
            failing.push(vec!["--config", bad]);
            failing.push(vec!["--config", missing]);
        }
        for arguments in failing.iter_mut() {
            if command[0] == "upgrade" {
                arguments.extend(["--check", env!("CARGO_BIN_EXE_natbox")]);
            }
            let (code, stdout, stderr) = outcome(&[&command, &arguments[..], &["--json"]].concat());
            let name = format!("{command:?} {arguments:?}");
            assert_eq!(stderr, "", "{name}");
            let answer: serde_json::Value = serde_json::from_str(&stdout)
                .unwrap_or_else(|error| panic!("{name}: {error}: {stdout}"));
            let error = answer["error"].as_str();
            let is_report = command == ["check"] && answer["ok"] == false;
            assert!(is_report || error.is_some_and(|error| error.len() > 10), "{name}: {stdout}");
            assert!(is_report || answer["exit_code"].as_i64() == code.map(i64::from), "{name}");
            assert!(matches!(code, Some(1 | 2)), "{name}: {code:?}");
        }
    }
}

#[test]
fn problems_of_all_files_are_a_list_in_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a.yaml", "b.yaml"].map(|name| directory.path().join(name));
    paths.iter().for_each(|path| fs::write(path, "uplink: []\n").unwrap());
    let [first, second] = [0, 1].map(|index| paths[index].to_str().unwrap());
    let (code, stdout, stderr) = outcome(&["plan", "--config", first, second, "--json"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let problems = answer["problems"].as_array().unwrap();
    let files: Vec<&str> =
        problems.iter().map(|problem| problem["file"].as_str().unwrap()).collect();
    assert!(files.contains(&first) && files.contains(&second), "{files:?}");
    assert_eq!(problems.iter().filter(|problem| problem["key"] == "uplink").count(), 2);
    let (code, stdout, stderr) = outcome(&["plan", "--config", first, second]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains(first) && stderr.contains(second), "{stderr}");
}

#[test]
fn check_takes_an_instance_only_to_compare_with_it() {
    let (code, _, stderr) = outcome(&["check", "--config", GOOD, "--name", "a"]);
    assert!(code == Some(1) && stderr.contains("--against-running"), "{stderr}");
}

/// A program that answers after more than a second makes natbox wait.
#[test]
fn a_long_wait_is_shown_on_a_terminal_and_in_no_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let slow = directory.path().join("slow");
    fs::write(&slow, "#!/bin/sh\nsleep 1.6\n").unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let arguments = ["upgrade", "--check", slow.to_str().unwrap(), "--config", GOOD];
    let (code, stdout, stderr) = outcome(&arguments);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(!stderr.contains("asking the other program"), "{stderr}");
    // `script` gives the command a terminal.
    let command = format!("{} {}", env!("CARGO_BIN_EXE_natbox"), arguments.join(" "));
    let output = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\rasking the other program: 1 s\u{1b}[K"), "{text:?}");
    let rest = text.rsplit("\u{1b}[K").next().unwrap();
    assert!(rest.trim_start_matches('\r').starts_with("natbox: "), "{text:?}");
}
