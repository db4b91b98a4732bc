use std::fs;
use std::time::Duration;

use super::*;

/// A file on disk and the record beside it.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn text(&self, hairpin: bool) -> String {
        format!(
            "name: a\ninside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\n\
             uplinks: [{{ interface: wan0, addresses: [203.0.113.10] }}]\n\
             nat: {{ hairpin: {hairpin} }}\nadmin: {{ socket: {}/a.sock }}\n",
            self.directory.path().display()
        )
    }

    fn record_path(&self) -> PathBuf {
        self.directory.path().join("a.reload")
    }

    /// Records a reload from hairpin to no hairpin.
    fn record(&self, confirm_seconds: u64) -> ReloadRecord {
        let before = config::parse("a.yaml", &self.text(true)).unwrap().config;
        let (before, changed) = (config::to_yaml(&before), vec!["nat.hairpin".to_owned()]);
        ReloadRecord::new(before, self.text(false), changed, confirm_seconds, &Clocks::now())
    }

    fn start(&self, text: &str) -> Result<StartConfig, Problems> {
        let path = self.directory.path().join("a.yaml");
        fs::write(&path, text).unwrap();
        start_config(&path)
    }

    fn start_after_reload(&self) -> StartConfig {
        self.start(&self.text(false)).unwrap()
    }
}

#[test]
fn without_a_record_a_start_uses_the_file() {
    let host = Host::new();
    let start = host.start_after_reload();
    assert!(!start.config.nat.hairpin && start.notes.is_empty());
    assert!(start.remembered.record.is_none() && !start.remembered.goes_back);
    assert_eq!(start.remembered.path, host.record_path());
}

#[test]
fn while_time_is_left_a_start_uses_the_file_and_the_countdown_goes_on() {
    let host = Host::new();
    host.record(600).write(&host.record_path()).unwrap();
    let start = host.start_after_reload();
    assert!(!start.config.nat.hairpin && !start.remembered.goes_back);
    let record = start.remembered.record.unwrap();
    let left = record.time_left(&Clocks::now());
    assert!(record.is_unconfirmed() && left > Duration::from_secs(500), "{left:?}");
}

#[test]
fn after_the_time_every_start_uses_the_configuration_before() {
    let host = Host::new();
    host.record(0).write(&host.record_path()).unwrap();
    let first = host.start_after_reload();
    assert!(first.config.nat.hairpin && first.remembered.goes_back);
    assert!(!first.remembered.record.unwrap().is_unconfirmed());
    let second = host.start_after_reload();
    assert!(second.config.nat.hairpin && !second.remembered.goes_back);
}

#[test]
fn a_file_that_was_edited_since_ends_the_record() {
    for seconds in [0, 600] {
        let host = Host::new();
        host.record(seconds).write(&host.record_path()).unwrap();
        let start = host.start(&(host.text(false) + "# edited\n")).unwrap();
        assert!(!start.config.nat.hairpin && start.remembered.record.is_none());
        assert!(start.notes[0].contains("changed since a reload"), "{:?}", start.notes);
        assert_eq!(ReloadRecord::read(&host.record_path()).unwrap(), None);
        assert!(host.start("").is_err(), "a wrong file is reported as ever");
    }
}

#[test]
fn a_damaged_record_is_named_and_the_file_is_used() {
    let host = Host::new();
    fs::write(host.record_path(), "{").unwrap();
    let start = host.start_after_reload();
    assert!(!start.config.nat.hairpin && start.notes[0].contains("a.reload"), "{:?}", start.notes);
    let mut broken = host.record(0);
    broken.before = "nat: 7".to_owned();
    broken.write(&host.record_path()).unwrap();
    let start = host.start_after_reload();
    assert!(!start.config.nat.hairpin && start.notes[0].contains("cannot go back"));
    assert_eq!(ReloadRecord::read(&host.record_path()).unwrap(), None);
}
