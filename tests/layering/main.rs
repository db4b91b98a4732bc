//! Checks the structure of the sources: which module may import which, where `unsafe` may be, and
//! how long files and functions may be.
//!
//! The rules are not edited to make a change fit. The checks read the sources as rustfmt lays them
//! out. Comments and items under `#[cfg(test)]` do not count. The places that do not follow a rule
//! yet are in [`exceptions`].

mod circles;
mod exceptions;
mod paths;
mod sizes;
mod source;
mod types;

use std::collections::BTreeSet;

use paths::{Library, named_paths};
use source::{BENCHES, EXAMPLES, FUZZ, LIBRARY, Source, every_file};

/// The top-level modules, and what each one may import besides itself. A path allows everything
/// below it.
const MODULES: [(&str, &[&str]); 20] = [
    ("packet", &[]),
    ("io", &["packet"]),
    ("time", &[]),
    ("timer", &[]),
    ("nearest", &[]),
    ("filter", &["packet", "nearest"]),
    ("packet_words", &["packet", "nearest"]),
    ("uplinks", &[]),
    ("values", &[]),
    ("dns", &["uplinks", "values"]),
    ("nat", &["packet", "time", "values"]),
    ("state", &["nat"]),
    ("engine", &["io", "packet", "nat", "time"]),
    ("config", &["values", "nearest"]),
    ("host", &["config", "timer"]),
    ("api", &["config", "host"]),
    (
        "control",
        &[
            "io", "packet", "time", "timer", "uplinks", "dns", "nat", "state", "engine", "config",
            "host", "api", "filter",
        ],
    ),
    ("lab", &["api"]),
    ("fuzzing", &["engine", "dns", "config", "control"]),
    (
        "cli",
        &[
            "io",
            "packet",
            "dns",
            "time",
            "nat",
            "state",
            "engine",
            "config",
            "host",
            "api",
            "control",
            "lab",
            "filter",
            "packet_words",
        ],
    ),
];

/// Names that a top-level module must not use although it may import their module. The control
/// plane reaches the translator through `engine::Handle` alone.
const HIDDEN: [(&str, &str); 1] = [("control", "nat::Translator")];

/// The files and folders inside a top-level module, lowest first. Each one may import the ones
/// before it. Those in one row may import each other, if that makes no circle. The module's own
/// file only re-exports and may name all of them.
const FOLDERS: [(&str, &[&[&str]]); 2] = [
    (
        "nat",
        &[
            &["verdict", "drop_advice", "counters", "dropped", "seed", "event_channel"],
            &["policy"],
            &["tracking"],
            &["table"],
            &["mapping"],
            &["fragments"],
            &["shared"],
            &["context"],
            &["translator"],
            &["translate"],
        ],
    ),
    ("host", &[&["error"], &["model"], &["kernel"], &["apply"], &["render"], &["doctor"]]),
];

/// The files that may contain unsafe code, tests included.
const UNSAFE: [&str; 3] = ["src/io/sys.rs", "src/io/uring/ring.rs", "src/nat/table/region.rs"];

/// The files that may let a thread sleep: the command `natbox down` is a process of its own, and
/// the thread that swaps policies waits for the workers.
const SLEEPING: [&str; 2] = ["src/control/down.rs", "src/engine/handle.rs"];

/// Lines of a file outside of tests.
const MAX_FILE: usize = 500;
/// Lines of a file with its tests; also of a file that holds tests alone.
const MAX_FILE_WITH_TESTS: usize = 600;
/// Lines of a function.
const MAX_FUNCTION: usize = 60;
/// Lines of a function of the tests, which may list many cases.
const MAX_TEST_FUNCTION: usize = 120;
/// Arms of a `select!`.
const MAX_SELECT: usize = 4;

#[test]
fn top_level_modules_import_only_what_the_table_allows() {
    let wrong = forbidden_imports(&LIBRARY, &MODULES, &HIDDEN);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns a message for each path that a module must not name.
///
/// # Panics
/// A module is not in the table.
fn forbidden_imports(
    sources: &[Source],
    modules: &[(&str, &[&str])],
    hidden: &[(&str, &str)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        let Some(module) = file.module.first().filter(|module| *module != "main") else { continue };
        let row = modules.iter().find(|(name, _)| name == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("{}: add {module} to MODULES", file.path));
        for named in named_paths(file, &file.code) {
            let path = named.segments.join("::");
            let is_hidden = hidden
                .iter()
                .any(|(from, hidden)| from == module && is_allowed(&path, hidden, &[]));
            if is_hidden || !is_allowed(&path, module, allowed) {
                let line = file.line_at(named.offset);
                wrong.push(format!("{}:{line}: {module} must not import crate::{path}", file.path));
            }
        }
    }
    wrong
}

fn is_allowed(path: &str, module: &str, allowed: &[&str]) -> bool {
    allowed.iter().copied().chain([module]).any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

#[test]
fn folders_import_downwards() {
    let wrong = upward_imports(&LIBRARY, &FOLDERS);
    check("folders_import_downwards", wrong, exceptions::UPWARD_IMPORTS);
}

/// Returns "from > to" for each import that points upwards, and each file that has no place in the
/// table.
fn upward_imports(sources: &[Source], folders: &[(&str, &[&[&str]])]) -> Vec<String> {
    let mut wrong = Vec::new();
    let edges = Library::new(sources).edges();
    for (module, rows) in folders {
        let level = |path: &str| {
            let below = path.strip_prefix("src/")?.strip_prefix(module)?.strip_prefix('/')?;
            let name = below.split('/').next()?.trim_end_matches(".rs").to_owned();
            Some((rows.iter().position(|row| row.contains(&&name[..])), name))
        };
        for source in sources.iter().filter(|source| source.module[..] != [module.to_owned()]) {
            match level(&source.path) {
                Some((None, _)) => wrong.push(source.path.clone()),
                Some((Some(own), _)) => {
                    let targets = edges.get(&source.path[..]).into_iter().flatten();
                    let levels = targets.map(|target| (target, level(target)));
                    let above = levels.filter(|(_, to)| {
                        to.as_ref().is_some_and(|(to, _)| to.is_some_and(|to| to > own))
                    });
                    wrong.extend(above.map(|(target, _)| format!("{} > {target}", source.path)));
                }
                None => {}
            }
        }
    }
    wrong
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles::circles(&Library::new(&LIBRARY).edges());
    let found = found.into_iter().map(|circle| Vec::from_iter(circle).join(" ")).collect();
    check("no_files_import_each_other_in_a_circle", found, exceptions::CIRCLES);
}

#[test]
fn only_the_command_line_uses_anyhow() {
    let users = LIBRARY.iter().filter(|file| file.code.contains("anyhow"));
    let wrong: Vec<_> =
        users.filter(|file| !file.path.starts_with("src/cli/")).map(|file| &file.path).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_listed_files_let_a_thread_sleep() {
    let runs =
        ["packet", "io", "time", "timer", "uplinks", "dns", "nat", "state", "engine", "host"];
    let sleeping = LIBRARY.iter().filter(|file| {
        let module = file.module.first().map_or("", String::as_str);
        (runs.contains(&module) || module == "control") && file.code.contains("thread::sleep")
    });
    let sleeping: Vec<_> = sleeping.map(|file| &file.path[..]).collect();
    assert_eq!(sleeping, SLEEPING);
}

#[test]
fn unsafe_code_is_allowed_in_few_files_only() {
    // The lint in Cargo.toml denies unsafe code wherever this word is not. Tests are no exception.
    let lifting = LIBRARY.iter().filter(|file| file.masked.contains("unsafe_code"));
    let lifting: BTreeSet<_> = lifting.map(|file| &file.path[..]).collect();
    assert_eq!(lifting, UNSAFE.into(), "the list UNSAFE and the sources differ");
}

#[test]
fn the_security_policy_names_the_files_with_unsafe_code() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md");
    let page = std::fs::read_to_string(page).expect("the policy");
    let (_, list) = page.split_once("\n## Unsafe code\n").expect("the section");
    let (list, _) = list.split_once("\n## ").expect("the next section");
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), UNSAFE);
}

#[test]
fn files_are_short() {
    let long = LIBRARY
        .iter()
        .chain(&*BENCHES)
        .filter(|file| file.lines > MAX_FILE)
        .map(|file| file.path.clone());
    check("files_are_short", long.collect(), exceptions::LONG_FILES);
}

#[test]
fn files_with_their_tests_are_short() {
    let long = every_file().into_iter().filter(|file| all_lines(file) > MAX_FILE_WITH_TESTS);
    check("files_with_their_tests_are_short", long.map(|file| file.path).collect(), &[]);
}

fn all_lines(file: &Source) -> usize {
    file.masked.lines().count()
}

#[test]
fn the_lines_of_tests_count_for_the_length_with_tests() {
    let file = Source::new("src/a.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n");
    assert_eq!((file.lines, all_lines(&file)), (2, 5));
}

#[test]
fn functions_are_short() {
    let long = measured(sizes::functions, MAX_FUNCTION);
    check("functions_are_short", long, exceptions::LONG_FUNCTIONS);
}

#[test]
fn functions_of_tests_are_short() {
    let long = every_file().into_iter().flat_map(|file| {
        let file = file.with_tests();
        over(&file, sizes::functions(&file), MAX_TEST_FUNCTION)
    });
    check("functions_of_tests_are_short", long.collect(), &[]);
}

#[test]
fn selects_have_few_arms() {
    check("selects_have_few_arms", measured(sizes::selects, MAX_SELECT), exceptions::WIDE_SELECTS);
}

/// Returns "file name" for each function or block with a size above `max`.
fn measured(measure: fn(&Source) -> Vec<sizes::Measured>, max: usize) -> Vec<String> {
    let files = LIBRARY.iter().chain(&*BENCHES).chain(&*EXAMPLES).chain(&*FUZZ);
    files.flat_map(|file| over(file, measure(file), max)).collect()
}

/// Returns "file name" for what is larger than `max`.
fn over(file: &Source, found: Vec<sizes::Measured>, max: usize) -> Vec<String> {
    let large = found.into_iter().filter(|found| found.size > max);
    large.map(|found| format!("{} {}", file.path, found.name)).collect()
}

#[test]
fn functions_under_cfg_test_are_measured_with_the_tests_only() {
    let file = Source::new(
        "src/a.rs",
        "fn f() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn g() {\n\n    }\n}\n",
    );
    assert_eq!(over(&file, sizes::functions(&file), 1), ["src/a.rs f"]);
    let all = file.with_tests();
    assert_eq!(over(&all, sizes::functions(&all), 2), ["src/a.rs g"]);
}

#[test]
fn public_types_share_a_name_only_within_a_family() {
    let found = shared_names(&LIBRARY, exceptions::FAMILIES);
    check("public_types_share_a_name_only_within_a_family", found, exceptions::SHARED_NAMES);
}

/// Modules in which types of one name stand for one idea.
struct Family {
    idea: &'static str,
    modules: &'static [&'static str],
    names: &'static [&'static str],
}

/// Returns each name that several public types have outside of a family, with their top-level
/// modules. Of a family, returns the names that no two types share.
fn shared_names(sources: &[Source], families: &[Family]) -> Vec<String> {
    let mut types = types::public_types(sources);
    let mut wrong = Vec::new();
    for Family { idea, modules, names } in families {
        for name in *names {
            let found = types.get_mut(*name).filter(|found| found.len() > 1);
            match found {
                Some(found) if found.iter().all(|module| modules.contains(module)) => found.clear(),
                Some(_) => {}
                None => wrong.push(format!("no shared name, remove it from \"{idea}\": {name}")),
            }
        }
    }
    let shared = types.iter().filter(|(_, modules)| modules.len() > 1);
    wrong.extend(shared.map(|(name, modules)| format!("{name} {}", modules.join(" "))));
    wrong
}

/// Compares what breaks a rule with the list of exceptions.
///
/// # Panics
/// Code breaks the rule and is not in the list, or an entry of the list is not needed.
fn check(rule: &str, found: Vec<String>, exceptions: &[&str]) {
    let problems = compare(&found, exceptions);
    assert!(problems.is_empty(), "{rule}:\n{}", problems.join("\n"));
}

fn compare(found: &[String], exceptions: &[&str]) -> Vec<String> {
    let new = found.iter().filter(|place| !exceptions.contains(&&place[..]));
    let new = new.map(|place| format!("breaks the rule: {place}"));
    let old = exceptions.iter().filter(|place| !found.iter().any(|found| found == *place));
    let old =
        old.map(|place| format!("follows the rule now, remove it from exceptions.rs: {place}"));
    new.chain(old).collect()
}

#[test]
fn exceptions_must_be_complete_and_needed() {
    let found = ["a".to_owned(), "b".to_owned()];
    assert_eq!(compare(&found, &["a", "b"]), [""; 0]);
    assert_eq!(compare(&found, &["a"]), ["breaks the rule: b"]);
    let unneeded = "follows the rule now, remove it from exceptions.rs: c";
    assert_eq!(compare(&found, &["a", "b", "c"]), [unneeded]);
}

#[test]
fn a_path_is_allowed_by_whole_names() {
    assert!(is_allowed("config::Config", "host", &["config"]));
    assert!(is_allowed("host::plan", "host", &["config"]));
    for path in ["configuration", "control", "hosts"] {
        assert!(!is_allowed(path, "host", &["config"]), "{path}");
    }
}

#[test]
fn a_forbidden_import_and_a_hidden_name_are_found() {
    let sources = [
        Source::new("src/nat/key.rs", "use crate::time::Tick;\n\nuse crate::io::open;\n"),
        Source::new("src/io/mod.rs", "use crate::nat::{Key, Translator};\n"),
        Source::new("src/main.rs", "use natbox::nat::Translator;\n"),
    ];
    let modules: [(&str, &[&str]); 2] = [("nat", &["time"]), ("io", &["nat"])];
    let wrong = forbidden_imports(&sources, &modules, &[("io", "nat::Translator")]);
    assert_eq!(
        wrong,
        [
            "src/nat/key.rs:3: nat must not import crate::io::open",
            "src/io/mod.rs:1: io must not import crate::nat::Translator",
        ]
    );
}

#[test]
fn an_import_that_points_upwards_is_found() {
    let sources = [
        Source::new("src/nat/mod.rs", "mod low;\nmod top;\nmod new;\npub use top::Top;\n"),
        Source::new("src/nat/low/mod.rs", "use super::Top;\nfn f(top: Top) {}\n"),
        Source::new("src/nat/top.rs", "use super::low::x;\npub struct Top;\n"),
        Source::new("src/nat/new.rs", ""),
    ];
    let wrong = upward_imports(&sources, &[("nat", &[&["low"], &["top"]])]);
    assert_eq!(wrong, ["src/nat/low/mod.rs > src/nat/top.rs", "src/nat/new.rs"]);
}

#[test]
fn a_shared_name_is_found_unless_a_family_has_it() {
    let sources = [
        Source::new("src/nat/a.rs", "pub struct Shared;\npub struct Forward;\npub struct One;\n"),
        Source::new("src/config/a.rs", "pub enum Shared {}\npub struct Forward;\n"),
    ];
    let family = |names| Family { idea: "forwards", modules: &["config", "nat"], names };
    let found = |families: &[Family]| shared_names(&sources, families);
    assert_eq!(found(&[]), ["Forward nat config", "Shared nat config"]);
    assert_eq!(found(&[family(&["Forward"])]), ["Shared nat config"]);
    let unneeded = "no shared name, remove it from \"forwards\": One";
    assert_eq!(found(&[family(&["Forward", "Shared", "One"])]), [unneeded]);
}
