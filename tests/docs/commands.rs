//! Every command in the documentation exists: those of natbox, the recipes, the scripts, the
//! benches.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::markdown::{Block, blocks, code_spans};
use super::{documents, fail_with, files_below, relative, root};

/// A command with the place where it stands.
struct Mention {
    place: String,
    command: String,
}

/// Commands of the documentation, the justfile, the workflow and the issue templates.
fn mentions() -> Vec<Mention> {
    let mut mentions = Vec::new();
    // The changelog names what is gone.
    for document in documents().iter().filter(|document| document.path != "CHANGELOG.md") {
        for block in blocks(&document.text) {
            let (line, commands): (usize, Vec<String>) = match &block {
                Block::Prose { line, text } => {
                    (*line, code_spans(text).into_iter().map(str::to_owned).collect())
                }
                Block::Code { line, language, text } if language == "sh" => {
                    (*line, text.lines().map(str::to_owned).collect())
                }
                Block::Code { .. } => continue,
            };
            let place = format!("{}:{line}", document.path);
            mentions.extend(
                commands.into_iter().map(|command| Mention { place: place.clone(), command }),
            );
        }
    }
    for file in files_below(&root().join(".github"), "yml") {
        let text = fs::read_to_string(&file).unwrap();
        let runs = text.lines().filter_map(|line| line.split_once("run: ").map(|(_, run)| run));
        let spans = text.lines().flat_map(code_spans);
        for command in runs.chain(spans) {
            mentions.push(Mention { place: relative(&file), command: command.to_owned() });
        }
    }
    mentions
}

/// The words of a command behind `program`, without sudo, comments, what a shell adds and the
/// program behind a pipe.
fn arguments<'c>(command: &'c str, program: &str) -> Option<Vec<&'c str>> {
    let command = command.split(" #").next().unwrap_or_default();
    let command = command.split(" | ").next().unwrap_or_default();
    let mut words = command.split_whitespace().peekable();
    while words.peek().is_some_and(|word| *word == "sudo" || *word == "env" || word.contains('=')) {
        words.next();
    }
    (words.next()? == program).then(|| words.collect())
}

/// Asks natbox for the help of a subcommand, such as `["doctor", "server"]`.
fn help(subcommand: &[&str]) -> Option<String> {
    let mut natbox = Command::new(env!("CARGO_BIN_EXE_natbox"));
    let output = natbox.args(subcommand).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The words that name a subcommand: those before the first option, file or placeholder.
fn subcommand<'c>(arguments: &[&'c str]) -> Vec<&'c str> {
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    arguments.iter().copied().take_while(|word| is_name(word) && !word.starts_with('-')).collect()
}

/// Explains what is wrong with the arguments of natbox, if anything is.
fn complaint(arguments: &[&str], helps: &mut BTreeMap<String, Option<String>>) -> Option<String> {
    let name = subcommand(arguments);
    let entry = helps.entry(name.join(" ")).or_insert_with(|| help(&name));
    let Some(help) = entry else { return Some(format!("no such command: {}", name.join(" "))) };
    let options = arguments[name.len()..].iter().map(|word| word.trim_start_matches('['));
    options
        .filter(|word| word.starts_with('-') && word.len() > 1)
        .map(|word| word.trim_end_matches(']').split('=').next().unwrap_or(word))
        .find(|option| {
            let mut known =
                help.split(|letter: char| letter.is_whitespace() || ",=".contains(letter));
            !known.any(|word| word == *option)
        })
        .map(|option| format!("{} has no option {option}", name.join(" ")))
}

#[test]
fn every_natbox_command_in_the_documentation_exists() {
    let mut helps = BTreeMap::new();
    let mut complaints = Vec::new();
    let mut checked = 0;
    for mention in mentions() {
        let direct = arguments(&mention.command, "natbox");
        let by_cargo = || {
            let run = arguments(&mention.command, "cargo")?;
            let separator = run.iter().position(|word| *word == "--")?;
            let is_natbox = run.first() == Some(&"run") && !run.contains(&"--example");
            is_natbox.then(|| run[separator + 1..].to_vec())
        };
        let Some(arguments) = direct.or_else(by_cargo) else { continue };
        checked += 1;
        if let Some(complaint) = complaint(&arguments, &mut helps) {
            complaints.push(format!("{}: `{}`: {complaint}", mention.place, mention.command));
        }
    }
    fail_with(&complaints);
    assert!(checked > 20, "only {checked} commands found in the documentation");
}

/// False for a path of ours, from the root or from `src/`, where no file or folder is.
fn names_what_exists(path: &str) -> bool {
    const OURS: [&str; 6] = ["netns-tests/", "benches/", "src/", "tests/", "configs/", "docs/"];
    const MODULES: [&str; 5] = ["nat/", "host/", "engine/", "packet/", "control/"];
    let path = path.split("::").next().unwrap_or_default();
    let is_pattern = path.contains(['*', '{', '<']);
    let starts = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    is_pattern
        || !starts(&OURS) && !starts(&MODULES)
        || root().join(path).exists()
        || starts(&MODULES) && root().join("src").join(path).exists()
}

#[test]
fn every_recipe_script_and_bench_that_the_documentation_names_exists() {
    let justfile = fs::read_to_string(root().join("justfile")).unwrap();
    let cargo = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let has_recipe = |name: &str| {
        let mut heads = justfile.lines().filter(|line| !line.starts_with([' ', '#']));
        heads.any(|line| {
            let head = line.split(':').next().unwrap_or_default();
            head.split_whitespace().next() == Some(name)
        })
    };
    let mut complaints = Vec::new();
    for mention in mentions() {
        let wrong = if let Some(words) = arguments(&mention.command, "just") {
            words.first().is_some_and(|recipe| !has_recipe(recipe))
        } else if let Some(words) = arguments(&mention.command, "cargo") {
            let target = |kind: &'static str| {
                words.windows(2).filter(move |pair| pair[0] == kind).map(|pair| pair[1])
            };
            let is_bench = |bench| cargo.contains(&format!("name = \"{bench}\""));
            let is_example = |example| root().join(format!("examples/{example}.rs")).exists();
            target("--bench").any(|bench| !is_bench(bench))
                || target("--example").any(|example| !is_example(example))
        } else {
            let program = mention.command.split_whitespace().next().unwrap_or_default();
            !names_what_exists(program)
        };
        if wrong {
            complaints.push(format!("{}: `{}`", mention.place, mention.command));
        }
    }
    fail_with(&complaints);
}

/// The commands of `natbox plan` with the values that the guides use for its variables.
fn planned(configs: &[&str]) -> String {
    let mut natbox = Command::new(env!("CARGO_BIN_EXE_natbox"));
    natbox.current_dir(root().join("configs")).args(["plan", "--config"]).args(configs);
    let output = natbox.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let values = [
        ("\"$BOX_natbox1\"", "10.0.0.100"),
        ("\"$BOX_natbox2\"", "10.0.0.200"),
        ("\"$BOX_three_legged\"", "10.0.0.1"),
        ("\"$DEV_10_0_0_0_24\"", "eth0"),
    ];
    let text = String::from_utf8(output.stdout).unwrap();
    values.iter().fold(text, |text, (variable, value)| text.replace(variable, value))
}

#[test]
fn the_servers_commands_in_the_guides_are_those_of_natbox_plan() {
    let plans = planned(&["natbox1.yaml", "natbox2.yaml"]) + &planned(&["three-legged.yaml"]);
    let planned: Vec<&str> = plans.lines().map(str::trim).collect();
    let mentions = mentions();
    let guides = mentions.iter().filter(|mention| mention.place.starts_with("docs/guide/"));
    let commands = guides.filter(|mention| {
        let mut words = mention.command.split_whitespace();
        words.next() == Some("ip") && words.nth(1).is_some()
    });
    let mut complaints = Vec::new();
    let mut checked = 0;
    for Mention { place, command } in commands {
        checked += 1;
        if !planned.contains(&command.as_str()) {
            complaints.push(format!("{place}: natbox plan does not print `{command}`"));
        }
    }
    fail_with(&complaints);
    assert!(checked > 5, "only {checked} commands for servers found in the guides");
}

#[test]
fn a_path_that_does_not_exist_is_found() {
    assert!(names_what_exists("netns-tests/run"));
    assert!(names_what_exists("nat/table"));
    assert!(names_what_exists("/etc/natbox/natbox1.yaml"));
    assert!(!names_what_exists("src/nothing.rs"));
    assert!(!names_what_exists("nat/nothing"));
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let mut helps = BTreeMap::new();
    let mut wrong = |command: &str| complaint(&arguments(command, "natbox").unwrap(), &mut helps);
    assert_eq!(wrong("sudo natbox doctor server --config a.yaml b.yaml"), None);
    assert_eq!(wrong("natbox status --json   # a comment --bogus"), None);
    assert_eq!(wrong("natbox bogus"), Some("no such command: bogus".to_owned()));
    assert_eq!(wrong("natbox status --bogus"), Some("status has no option --bogus".to_owned()));
    assert!(arguments("cat natbox", "natbox").is_none());
}
