//! docs/reference/cli.md, made from the definitions of the arguments.
//!
//! `NATBOX_BLESS=1 cargo test --lib cli::reference` rewrites the file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::Cli;
use super::exit::{BUG, DONE, ENVIRONMENT, USER};

const FILE: &str = "docs/reference/cli.md";

/// The variables that the DNS hook gets, with their meaning.
const HOOK_VARIABLES: [(&str, &str); 6] = [
    ("NATBOX_UPLINK", "name of the uplink that changed"),
    ("NATBOX_ADDRESS", "first external address of that uplink; empty if it has none"),
    ("NATBOX_STATE", "`up` or `down`"),
    ("NATBOX_TIER", "tier of the uplink"),
    (
        "NATBOX_UP_UPLINKS",
        "names of the healthy uplinks of the lowest tier that has one, one per line",
    ),
    ("NATBOX_UP_ADDRESSES", "their addresses, separated by spaces"),
];

#[test]
fn reference_of_the_command_line_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let wanted = reference();
    if std::env::var_os("NATBOX_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{FILE} is out of date: NATBOX_BLESS=1 cargo test --lib cli::reference"
    );
}

#[test]
fn reference_names_every_variable_of_the_hook() {
    let source = include_str!("../dns/hook.rs");
    let set: BTreeSet<&str> = source
        .match_indices("\"NATBOX_")
        .map(|(at, _)| source[at + 1..].split('"').next().unwrap_or_default())
        .collect();
    assert_eq!(set, HOOK_VARIABLES.iter().map(|(name, _)| *name).collect());
}

#[test]
fn reference_shows_commands_options_values_and_defaults() {
    let text = reference();
    for part in [
        "## natbox run\n",
        "### natbox demo failover\n",
        "`-c`, `--config <FILE>`",
        "`-f`, `--follow`",
        "Default: `100`.",
        "Required.",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    for hidden in ["run-hooks", "list-rules", "stand-by"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
}

fn reference() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = format!(
        "# Command line\n\n\
         This page is made from the program's own definitions (`src/cli`).\n\n\
         Results go to standard output, messages and warnings to standard error. With `--json`\n\
         standard output holds nothing but JSON. A command that fails prints an object then:\n\
         `error`, `exit_code` and, for configuration files, `problems`. If a part of the answer has\n\
         been printed already, the object goes to standard error.\n\n\
         | exit code | meaning |\n|---|---|\n\
         | {DONE} | The command succeeded. |\n\
         | {USER} | The arguments or the configuration are wrong, or a check found an error. A \
         retry does not help. |\n\
         | {ENVIRONMENT} | The host lacks or rejects something, another process has it, `run` \
         cannot read its file, or no instance answers. A later retry may help. |\n\
         | {BUG} | natbox has a bug. |\n\
         | 128 + n | `natbox demo` was ended by signal n. |\n"
    );
    for command in visible(&root) {
        describe(&mut text, command, "natbox", 2);
    }
    text.push_str("\n## Environment of the DNS hook\n\n");
    text.push_str(&folded(
        "`dns.hook` names a program that natbox runs when an uplink comes up or goes down. \
         The program gets these variables:",
    ));
    text.push_str("\n\n| variable | content |\n|---|---|\n");
    for (name, meaning) in HOOK_VARIABLES {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn describe(text: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(text, "\n{} {name}\n", "#".repeat(level));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    for paragraph in about.unwrap_or_default().split("\n\n").filter(|part| !part.is_empty()) {
        let _ = writeln!(text, "{}\n", folded(&sentence(paragraph)));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let _ = writeln!(text, "```text\n{}\n```", usage.replace("\n       ", "\n"));
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
        .collect();
    if !arguments.is_empty() {
        text.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for argument in arguments {
        let _ = writeln!(text, "| {} | {} |", forms(argument), meaning(argument));
    }
    for below in visible(command) {
        describe(text, below, &name, level + 1);
    }
}

fn forms(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let value = argument.get_value_names().into_iter().flatten().next().filter(|_| takes_value);
    let many = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    let value =
        value.map_or(String::new(), |value| format!(" <{value}>{}", if many { "..." } else { "" }));
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let long = argument.get_long().map(|long| format!("`--{long}{value}`"));
    let forms: Vec<String> = short.into_iter().chain(long).collect();
    if forms.is_empty() { format!("`{}`", value.trim()) } else { forms.join(", ") }
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string);
    let mut meaning = sentence(&help.unwrap_or_default());
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(meaning, " Default: `{}`.", defaults.join(" "));
    }
    if argument.is_required_set() {
        meaning.push_str(" Required.");
    }
    meaning
}

fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.ends_with(['.', ':']) { text } else { format!("{text}.") }
}

/// Breaks a paragraph into lines of at most 100 characters.
fn folded(paragraph: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in paragraph.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > 100 {
            lines.push(std::mem::take(&mut line));
        }
        line += if line.is_empty() { "" } else { " " };
        line += word;
    }
    lines.push(line);
    lines.join("\n")
}
