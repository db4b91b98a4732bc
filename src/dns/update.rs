//! Tells the server where the zone lives which addresses are usable: RFC 2136 updates, signed (TSIG, RFC 8945).
//!
//! The state is told, not the change: an update that did not arrive is made up for by the next one, and sending one twice
//! does no harm. It goes by TCP, over a line that is usable.
//!
//! | file          | idea                                     |
//! |---------------|------------------------------------------|
//! | `exchange.rs` | one update sent over a line, and answered |
//! | `memory.rs`   | what this box has put into the zone      |

mod announced;
mod exchange;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::sync::watch;

use super::last_errors::LastErrors;
use super::uplinks::UplinkStates;
use super::zone::{PublishedName, Zone};

use announced::AnnouncedRecords;

/// Whom to tell, and how.
#[derive(Clone, Debug)]
pub struct Update {
    /// The server.
    pub server: SocketAddr,
    /// Whether lines lead to it. Not so where it is on the private network: there the host knows the way.
    pub over_lines: bool,
    /// The zone there that holds the published names.
    pub zone: Name,
    /// What is replaced.
    pub replace: Replace,
    /// File that remembers what this box has told, where only that is replaced; none: nothing outlives the process.
    pub announced: Option<PathBuf>,
    /// The key that both know.
    pub key: Key,
}

/// Which records an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// All addresses of a name: this box alone publishes it. If no line is usable, all are told.
    All,
    /// Those of this box's lines: other boxes publish the name, too. If no line is usable, none is told.
    Own,
}

/// A key of TSIG.
#[derive(Clone)]
pub struct Key {
    /// Its name.
    pub name: Name,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its secret, see [`read_secret`].
    pub secret: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Algorithms of TSIG that are implemented here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// hmac-sha256
    HmacSha256,
    /// hmac-sha512
    HmacSha512,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{path}: {source}; it must be readable for natbox's user")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path}: found no base64 ({reason}), wanted the secret alone, as tsig-keygen prints it after `secret`"
    )]
    NotBase64 {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a secret from a file that holds it in base64.
///
/// # Errors
/// See [`SecretError`].
pub fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let not_base64 = |reason: String| SecretError::NotBase64 { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    let secret =
        BASE64.decode(text.trim().as_bytes()).map_err(|error| not_base64(error.to_string()))?;
    if secret.is_empty() { Err(not_base64("the file is empty".to_owned())) } else { Ok(secret) }
}

/// Sends an update at once and at every change, for ever; what fails is tried again.
pub(super) async fn follow(
    zone: Zone,
    update: Update,
    mut lines: watch::Receiver<UplinkStates>,
    troubles: Arc<LastErrors>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Vec<Record>> = None;
    let mut memory =
        AnnouncedRecords::open(update.announced.clone().filter(|_| update.replace == Replace::Own));
    loop {
        let now = lines.borrow_and_update().clone();
        let own = own_records(&zone, &now);
        memory.add(own.iter().cloned());
        let wanted = records(&zone, &update, &now, memory.records());
        let mut again = false;
        if told.as_ref() != Some(&wanted) {
            let sent = tokio::select! {
                sent = exchange::send(&update, &wanted, &now) => sent,
                // What was to be told is true no more, and the ways are others.
                changed = lines.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    told = None;
                    continue;
                }
            };
            match sent {
                Ok(way) => {
                    let usable =
                        now.lines.iter().filter(|line| line.up).map(|line| line.name.as_str());
                    let usable = usable.collect::<Vec<_>>().join(", ");
                    tracing::info!(server = %update.server, way, usable, "DNS updated");
                    troubles.update.clear();
                    memory.keep(own);
                    told = Some(wanted);
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    // Whether it took effect is unknown.
                    told = None;
                    again = true;
                    let seconds = pause.as_secs();
                    tracing::warn!(server = %update.server, error, "DNS not updated; tried again in {seconds} s");
                    troubles.update.set(error);
                }
            }
        }
        let changed = tokio::select! {
            changed = lines.changed() => changed,
            () = tokio::time::sleep(pause), if again => {
                pause = (pause * 2).min(MAX_PAUSE);
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Every name with every address that this box may give it now.
fn own_records(zone: &Zone, lines: &UplinkStates) -> BTreeSet<(Name, Ipv4Addr)> {
    let of = |published: &PublishedName| -> Vec<_> {
        let own = published.lines.iter().filter_map(|number| lines.lines.get(*number)?.address);
        own.map(|address| (published.name.clone(), address)).collect()
    };
    zone.published.iter().flat_map(of).collect()
}

/// The update section: what is deleted, then what is added. `past`: what this box has told, or tells now.
fn records(
    zone: &Zone,
    update: &Update,
    lines: &UplinkStates,
    past: &BTreeSet<(Name, Ipv4Addr)>,
) -> Vec<Record> {
    let record = |name: &Name, address, class, ttl| {
        let mut record = Record::from_rdata(name.clone(), ttl, RData::A(A(address)));
        record.dns_class = class;
        record
    };
    match update.replace {
        Replace::All => {
            let replaced = |published: &PublishedName| {
                // RFC 2136 section 2.5.2: deletes the set.
                let mut all = Record::update0(published.name.clone(), 0, RecordType::A);
                all.dns_class = DNSClass::ANY;
                let usable = lines.addresses_to_serve(&published.lines).into_iter();
                let added = usable
                    .map(|(_, address)| record(&published.name, address, DNSClass::IN, zone.ttl));
                std::iter::once(all).chain(added).collect::<Vec<_>>()
            };
            zone.published.iter().flat_map(replaced).collect()
        }
        Replace::Own => {
            // RFC 2136 section 2.5.4: deletes one record. All of them, so that a changed TTL takes effect. A name of another
            // zone, which may have been told before, would have all of it refused (section 3.4.1.3).
            let past = past.iter().filter(|(name, _)| update.zone.zone_of(name));
            let deleted = past.map(|(name, address)| record(name, *address, DNSClass::NONE, 0));
            let added = zone.published.iter().flat_map(|published| {
                let own = published.lines.iter().filter_map(|number| lines.lines.get(*number));
                let usable = own.filter(|line| line.up).filter_map(|line| line.address);
                usable
                    .map(|address| record(&published.name, address, DNSClass::IN, zone.ttl))
                    .collect::<Vec<_>>()
            });
            deleted.chain(added).collect()
        }
    }
}

/// Between attempts: doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::testing::{lines, name, zone};
    use super::*;

    /// `CLASS NAME ADDRESS`, or `CLASS NAME *` where the whole set is meant.
    fn shown(records: &[Record]) -> Vec<String> {
        let data = |record: &Record| {
            if let RData::A(A(address)) = &record.data {
                address.to_string()
            } else {
                "*".to_owned()
            }
        };
        records
            .iter()
            .map(|record| format!("{} {} {}", record.dns_class, record.name, data(record)))
            .collect()
    }

    fn update(replace: Replace) -> Update {
        let key = Key { name: name("k"), algorithm: Algorithm::HmacSha256, secret: vec![7; 32] };
        let server = ([192, 0, 2, 53], 53).into();
        Update { server, over_lines: true, zone: zone().origin, replace, announced: None, key }
    }

    #[test]
    fn an_update_replaces_the_addresses_of_each_name_by_the_usable_ones() {
        let (mut zone, mut lines) = (zone(), lines());
        zone.published.truncate(2);
        lines.lines[1].up = false;
        let all = |lines: &UplinkStates| {
            shown(&records(&zone, &update(Replace::All), lines, &BTreeSet::new()))
        };
        assert_eq!(
            all(&lines),
            [
                "ANY www.example.org. *",
                "IN www.example.org. 203.0.113.1",
                "IN www.example.org. 203.0.113.3",
                "ANY example.org. *",
                "IN example.org. 203.0.113.1",
            ]
        );
        lines.lines[0].up = false;
        let last = all(&lines).pop();
        assert_eq!(
            last.as_deref(),
            Some("IN example.org. 203.0.113.1"),
            "dead data is better than none"
        );
    }

    #[test]
    fn an_update_of_its_own_records_leaves_those_of_other_boxes_alone() {
        let (mut zone, mut lines) = (zone(), lines());
        zone.published = vec![PublishedName { name: name("www.example.org"), lines: vec![0, 1] }];
        lines.lines[1].up = false;
        let mut past = own_records(&zone, &lines);
        let own = |lines: &UplinkStates, past: &_| {
            shown(&records(&zone, &update(Replace::Own), lines, past))
        };
        let deleted = ["NONE www.example.org. 203.0.113.1", "NONE www.example.org. 203.0.113.2"];
        let found = own(&lines, &past);
        assert_eq!(found[..2], deleted);
        assert_eq!(found[2..], ["IN www.example.org. 203.0.113.1"]);
        // An address that a line has no more is taken out, too, and a name that is published no more.
        lines.lines[0].address = Some(Ipv4Addr::new(203, 0, 113, 7));
        past.extend(own_records(&zone, &lines));
        past.insert((name("old.example.org"), Ipv4Addr::new(203, 0, 113, 1)));
        past.insert((name("www.example.net"), Ipv4Addr::new(203, 0, 113, 1)));
        let found = own(&lines, &past);
        let [old, ..] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(old, "NONE old.example.org. 203.0.113.1");
        assert_eq!(found[1..3], deleted);
        assert_eq!(
            found[3..],
            ["NONE www.example.org. 203.0.113.7", "IN www.example.org. 203.0.113.7"]
        );
        lines.lines[0].up = false;
        assert_eq!(own(&lines, &past).len(), 4, "nothing is added");
    }

    #[test]
    fn a_secret_is_base64_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_secret(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("c2VjcmV0\n"), Ok(b"secret".to_vec()));
        for text in ["", "\n", "c2VjcmV0!", "secret \"c2VjcmV0\";"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("found no base64") && error.contains("/secret"), "{error}");
        }
        assert!(
            read_secret(&directory.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        let key =
            Key { name: name("k"), algorithm: Algorithm::HmacSha256, secret: b"hidden".to_vec() };
        let shown = format!("{key:?}");
        assert!(!shown.contains("104") && !shown.contains("hidden"), "{shown}");
    }
}
