//! The records that this instance has put into the zone, kept in a file beyond the life of the
//! process: natbox also deletes an address that an uplink lost while natbox was not running.
//!
//! The file has one `NAME ADDRESS` in each line. natbox writes a record to the file before it sends
//! the record. So the file may hold more than the zone does, never less.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use hickory_proto::rr::Name;

/// A name, and an address that it has or may have.
pub(super) type AnnouncedRecord = (Name, Ipv4Addr);

/// The records that may be in the zone because of this instance.
#[derive(Debug)]
pub(super) struct AnnouncedRecords {
    /// File; None: the records end with the process.
    path: Option<PathBuf>,
    records: BTreeSet<AnnouncedRecord>,
}

impl AnnouncedRecords {
    /// Reads the records that the process before left.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let text = match path.as_ref().map(fs::read_to_string) {
            None => String::new(),
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(
                        path = %shown(path.as_ref()), %error,
                        "dns.update: the announced records cannot be read"
                    );
                }
                String::new()
            }
        };
        Self { path, records: text.lines().filter_map(record).collect() }
    }

    /// Returns all records.
    pub(super) fn records(&self) -> &BTreeSet<AnnouncedRecord> {
        &self.records
    }

    /// Adds records that natbox is about to send.
    pub(super) fn add(&mut self, records: impl Iterator<Item = AnnouncedRecord>) {
        let before = self.records.len();
        self.records.extend(records);
        if self.records.len() != before {
            self.write();
        }
    }

    /// Removes all records but these. The server has deleted the others.
    pub(super) fn keep(&mut self, records: BTreeSet<AnnouncedRecord>) {
        if self.records != records {
            self.records = records;
            self.write();
        }
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let text: String =
            self.records.iter().map(|(name, address)| format!("{name} {address}\n")).collect();
        // In one step, so that a crash leaves no half file.
        let new = path.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, path)) {
            tracing::warn!(
                path = %path.display(), %error,
                "dns.update: the announced records cannot be written; an address that changes \
                 while natbox is not running stays in the zone"
            );
        }
    }
}

fn record(line: &str) -> Option<AnnouncedRecord> {
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
    fn announced_records_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("natbox.announced");
        let record = |text, last| (name(text), Ipv4Addr::new(203, 0, 113, last));
        let mut announced = AnnouncedRecords::open(Some(path.clone()));
        assert!(announced.records().is_empty());
        announced.add([record("www.example.org", 1), record("a.example.org", 2)].into_iter());
        announced.add([record("www.example.org", 3)].into_iter());
        let reopened = AnnouncedRecords::open(Some(path.clone()));
        assert_eq!(reopened.records(), announced.records());
        assert_eq!(reopened.records().len(), 3);
        announced.keep([record("www.example.org", 3)].into());
        assert_eq!(
            AnnouncedRecords::open(Some(path.clone())).records(),
            &[record("www.example.org", 3)].into()
        );
        // Lines that are no records are ignored. A file that cannot be written stops nothing.
        fs::write(&path, "www.example.org. 203.0.113.9\nnonsense\n\n. x\n").unwrap();
        assert_eq!(
            AnnouncedRecords::open(Some(path)).records(),
            &[record("www.example.org", 9)].into()
        );
        let mut nowhere = AnnouncedRecords::open(Some("/nowhere/natbox.announced".into()));
        nowhere.add([record("www.example.org", 1)].into_iter());
        assert_eq!(nowhere.records().len(), 1);
    }
}
