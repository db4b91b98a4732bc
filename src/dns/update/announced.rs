//! What this box has put into the zone, remembered beyond the life of its process: an address that a line loses while
//! natbox is away is taken out all the same.
//!
//! A file with one `NAME ADDRESS` in each line. What is going to be told is written before it is, so it may hold more
//! than the zone does, and never less.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use hickory_proto::rr::Name;

/// A name and an address that it has, or may have.
pub(super) type Record = (Name, Ipv4Addr);

/// What may be in the zone because of this box.
#[derive(Debug)]
pub(super) struct AnnouncedRecords {
    /// None: it ends with the process.
    path: Option<PathBuf>,
    records: BTreeSet<Record>,
}

impl AnnouncedRecords {
    /// Reads what the last process left.
    pub fn open(path: Option<PathBuf>) -> Self {
        let text = match path.as_ref().map(fs::read_to_string) {
            None => String::new(),
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %shown(path.as_ref()), %error, "what was told of the DNS before is not known");
                }
                String::new()
            }
        };
        Self { path, records: text.lines().filter_map(record).collect() }
    }

    /// All of it.
    pub fn records(&self) -> &BTreeSet<Record> {
        &self.records
    }

    /// Adds what is going to be told.
    pub fn add(&mut self, records: impl Iterator<Item = Record>) {
        let before = self.records.len();
        self.records.extend(records);
        if self.records.len() != before {
            self.write();
        }
    }

    /// Forgets all but these: the others have been taken out of the zone.
    pub fn keep(&mut self, records: BTreeSet<Record>) {
        if self.records != records {
            self.records = records;
            self.write();
        }
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let text: String =
            self.records.iter().map(|(name, address)| format!("{name} {address}\n")).collect();
        // In one step: half a file would be half a memory.
        let new = path.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, path)) {
            tracing::warn!(
                path = %path.display(), %error,
                "what is told of the DNS cannot be remembered: an address that changes while natbox is away stays there"
            );
        }
    }
}

fn record(line: &str) -> Option<Record> {
    let (name, address) = line.split_once(' ')?;
    Some((Name::from_ascii(name).ok()?, address.parse().ok()?))
}

fn shown(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::name;
    use super::*;

    #[test]
    fn what_was_told_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("box.announced");
        let record = |text, last| (name(text), Ipv4Addr::new(203, 0, 113, last));
        let mut memory = AnnouncedRecords::open(Some(path.clone()));
        assert!(memory.records().is_empty());
        memory.add([record("www.example.org", 1), record("a.example.org", 2)].into_iter());
        memory.add([record("www.example.org", 3)].into_iter());
        let reopened = AnnouncedRecords::open(Some(path.clone()));
        assert_eq!(reopened.records(), memory.records());
        assert_eq!(reopened.records().len(), 3);
        memory.keep([record("www.example.org", 3)].into());
        assert_eq!(
            AnnouncedRecords::open(Some(path.clone())).records(),
            &[record("www.example.org", 3)].into()
        );
        // What is no record is passed over, and a file that cannot be written stops nothing.
        fs::write(&path, "www.example.org. 203.0.113.9\nnonsense\n\n. x\n").unwrap();
        assert_eq!(
            AnnouncedRecords::open(Some(path)).records(),
            &[record("www.example.org", 9)].into()
        );
        let mut nowhere = AnnouncedRecords::open(Some("/nowhere/box.announced".into()));
        nowhere.add([record("www.example.org", 1)].into_iter());
        assert_eq!(nowhere.records().len(), 1);
    }
}
