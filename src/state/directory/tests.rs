use std::os::unix::fs::FileExt;

use serde_json::{Value, json};

use super::*;

fn required(sessions: u32) -> StateRequirements {
    let uplinks = vec!["isp1".to_owned(), "isp2".to_owned()];
    let (boot, meaning) = ("boot".to_owned(), "eim".to_owned());
    StateRequirements { boot, sessions, accounting: false, uplinks, meaning }
}

fn reason(opened: Opened) -> String {
    match opened {
        Opened::Inherited => "inherited".to_owned(),
        Opened::Empty(reason) => reason.unwrap_or_default(),
        Opened::Old(_, reason) => format!("old: {reason}"),
    }
}

fn open(base: &Path, required: &StateRequirements) -> (SessionState, Opened) {
    SessionState::open(base, "box", required).expect("state")
}

/// What the first byte of the records says.
fn mark(files: &SessionFiles) -> u8 {
    let mut byte = [0];
    files.records.read_exact_at(&mut byte, 0).expect("a byte");
    byte[0]
}

/// Makes files for 1,000 sessions, whose first byte is 7.
fn marked_files(base: &Path) {
    let (mut state, opened) = open(base, &required(1000));
    assert_eq!(reason(opened), "");
    state.files.records.write_all_at(&[7], 0).expect("space");
    state.adopted().expect("a header");
}

/// Changes the header of the files.
fn edit_header(base: &Path, key: &str, value: Value) {
    let path = base.join("box").join(HEADER);
    let text = fs::read_to_string(&path).expect("a header");
    let mut header: Value = serde_json::from_str(&text).expect("JSON");
    header[key] = value;
    fs::write(&path, header.to_string()).expect("a header");
}

fn names(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base.join("box")).expect("a directory");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> =
        entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    names
}

#[test]
fn files_are_inherited_by_a_process_with_the_same_wants() {
    let base = tempfile::tempdir().expect("a directory");
    let open = |required: &StateRequirements| SessionState::open(base.path(), "box", required);
    let (first, opened) = open(&required(1000)).expect("state");
    assert_eq!(reason(opened), "");
    let seed = first.seed;
    let error = open(&required(1000)).expect_err("locked");
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    drop(first);
    let (mut second, opened) = open(&required(1000)).expect("state");
    assert_eq!(reason(opened), "inherited");
    assert!(second.seed == seed);
    second.adopted().expect("a header");
}

/// Each change of the configuration sets the files aside. They stay until the import is complete,
/// whatever the next process wants.
#[test]
fn files_of_another_configuration_stay_until_their_sessions_are_imported() {
    let base = tempfile::tempdir().expect("a directory");
    let changes: [(&str, StateRequirements); 4] = [
        ("the configuration has another `limits.sessions`", required(2000)),
        (
            "only one of the two processes counts the packets and bytes of each session",
            StateRequirements { accounting: true, ..required(1000) },
        ),
        (
            "the configuration has another list of uplinks",
            StateRequirements { uplinks: vec!["isp2".to_owned()], ..required(1000) },
        ),
        (
            "the configuration has another mapping behaviour",
            StateRequirements { meaning: "adm".to_owned(), ..required(1000) },
        ),
    ];
    for (sentence, other) in changes {
        marked_files(base.path());
        let old = |opened: Opened, wanted_reason: &str| match opened {
            Opened::Old(old, reason) => {
                assert_eq!(reason, wanted_reason);
                assert_eq!((mark(&old.files), old.capacity), (7, 1000));
                assert_eq!(old.uplinks, ["isp1", "isp2"]);
                assert_eq!(old.other_mappings, other.meaning == "adm" && !reason.contains("died"));
            }
            opened @ (Opened::Empty(_) | Opened::Inherited) => panic!("{sentence}: {opened:?}"),
        };
        // Three processes die during the import. The second one has the first configuration again.
        let (state, opened) = open(base.path(), &other);
        old(opened, sentence);
        state.files.records.write_all_at(&[9], 0).expect("space");
        drop(state);
        old(open(base.path(), &required(1000)).1, "a process died while it imported them");
        let (mut state, opened) = open(base.path(), &other);
        old(opened, sentence);
        assert_eq!(mark(&state.files), 0, "an import begins with empty files");
        state.files.records.write_all_at(&[8], 0).expect("space");
        state.imported().expect("a header");
        assert_eq!(names(base.path()), ["accounts", HEADER, "index", "lock", "records"]);
        drop(state);
        let (state, opened) = open(base.path(), &other);
        assert_eq!((reason(opened), mark(&state.files)), ("inherited".to_owned(), 8));
        drop(state);
        remove(base.path(), "box").expect("removed");
    }
}

/// A process may die after each step of setting aside, and of removing the old files.
#[test]
fn files_that_are_set_aside_in_part_are_imported() {
    let base = tempfile::tempdir().expect("a directory");
    let directory = base.path().join("box");
    for steps in 0..=3 {
        marked_files(base.path());
        fs::copy(directory.join(HEADER), directory.join("old.header.json")).expect("a header");
        for name in &FILES[..steps] {
            fs::rename(directory.join(name), directory.join(import::aside(name))).expect("a file");
        }
        let (mut state, opened) = open(base.path(), &required(1000));
        match opened {
            Opened::Old(old, _) => assert_eq!(mark(&old.files), 7, "{steps}"),
            opened @ (Opened::Empty(_) | Opened::Inherited) => panic!("{steps}: {opened:?}"),
        }
        state.imported().expect("a header");
        drop(state);
        // The old header is removed first.
        for name in &FILES[steps..] {
            fs::write(directory.join(import::aside(name)), "old").expect("a file");
        }
        assert_eq!(reason(open(base.path(), &required(1000)).1), "inherited");
        assert_eq!(names(base.path()), ["accounts", HEADER, "index", "lock", "records"]);
        remove(base.path(), "box").expect("removed");
    }
}

#[test]
fn files_of_an_older_layout_are_imported_and_those_of_unknown_ones_are_not() {
    let base = tempfile::tempdir().expect("a directory");
    let cases = [
        ("layout", json!(FIRST_LAYOUT), "old: natbox of another release wrote them"),
        ("layout", json!([9, 9]), "natbox of another release wrote them"),
        ("boot", json!("another"), "the files are of another boot"),
        ("version", json!(9), "natbox of another version wrote them"),
    ];
    for (key, value, sentence) in cases {
        marked_files(base.path());
        edit_header(base.path(), key, value);
        let reason = reason(open(base.path(), &required(1000)).1);
        assert!(reason.starts_with(sentence), "{reason}");
        remove(base.path(), "box").expect("removed");
    }
}

/// The layout before the present one.
const FIRST_LAYOUT: [u64; 25] =
    [1, 1, 64, 40, 64, 0, 8, 16, 20, 24, 0, 1, 2, 3, 4, 8, 28, 32, 36, 38, 0, 16, 48, 52, 56];

#[test]
fn processes_that_die_during_the_adoption_lead_to_empty_files() {
    let base = tempfile::tempdir().expect("a directory");
    let open = || reason(open(base.path(), &required(10)).1);
    assert_eq!(open(), "");
    for _ in 1..10 {
        assert_eq!(open(), "inherited");
    }
    let sentence = "10 processes in a row died while they took the sessions over";
    assert_eq!(open(), sentence);
}

#[test]
fn processes_that_die_during_the_import_lead_to_empty_files() {
    let base = tempfile::tempdir().expect("a directory");
    marked_files(base.path());
    for _ in 0..10 {
        assert!(reason(open(base.path(), &required(10)).1).starts_with("old"));
    }
    let sentence = "10 processes in a row died while they took the sessions over";
    assert_eq!(reason(open(base.path(), &required(10)).1), sentence);
    assert_eq!(names(base.path()), ["accounts", HEADER, "index", "lock", "records"]);
}

#[test]
fn damage_leads_to_empty_files_and_a_sentence() {
    let base = tempfile::tempdir().expect("a directory");
    let open = |sessions| reason(open(base.path(), &required(sessions)).1);
    for sessions in [10, 20] {
        for (file, content) in
            [(HEADER, "{"), ("records", "short"), ("index", ""), (HEADER, "{\"magic\": 1}")]
        {
            open(10);
            fs::write(base.path().join("box").join(file), content).expect("a file");
            let sentence = open(sessions);
            assert!(sentence.contains("damaged") || sentence.contains("length"), "{sentence}");
            remove(base.path(), "box").expect("removed");
        }
    }
    assert_eq!(open(10), "");
}

/// A reload gives the numbers of the uplinks other names.
#[test]
fn files_are_inherited_by_a_process_whose_uplinks_have_the_names_of_the_last_reload() {
    let base = tempfile::tempdir().expect("a directory");
    marked_files(base.path());
    let (mut state, _) = open(base.path(), &required(1000));
    let names = ["isp1", "isp9"].map(str::to_owned).to_vec();
    state.set_uplinks(names.clone()).expect("a header");
    state.adopted().expect("a header");
    drop(state);
    let now = StateRequirements { uplinks: names, ..required(1000) };
    let (state, opened) = open(base.path(), &now);
    assert!(matches!(opened, Opened::Inherited), "{opened:?}");
    assert_eq!(mark(&state.files), 7);
}
