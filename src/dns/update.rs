//! Sends the addresses of uplinks that are in use to another name server: RFC 2136 updates, signed
//! with TSIG (RFC 8945).
//!
//! An update contains the whole state, not the change. So the next update makes up for a lost one,
//! and an update that is sent twice does no harm. Updates go by TCP, first over an uplink in use.
//!
//! | file        | idea                                                 |
//! |-------------|------------------------------------------------------|
//! | `settings`  | server, zone and key                                 |
//! | `exchange`  | one update, sent over an uplink and answered         |
//! | `announced` | the records that this instance has put into the zone |

mod announced;
pub(super) mod exchange;
mod settings;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::sync::watch;

use super::last_errors::LastErrors;
use super::zone::{PublishedName, Zone};
use crate::uplinks::UplinkStates;
use crate::values::dns::Replace;

pub(crate) use settings::{SecretError, TsigKey, Update, read_secret};

use announced::AnnouncedRecords;

/// Sends an update at once and after every change of the uplinks, for ever. Tries again after a
/// failure.
pub(super) async fn follow(
    zone: Zone,
    update: Update,
    mut uplinks: watch::Receiver<UplinkStates>,
    last_errors: Arc<LastErrors>,
) {
    let mut updater = Updater::new(zone, update, last_errors);
    loop {
        let states = uplinks.borrow_and_update().clone();
        let is_due = updater.prepare(&states);
        if is_due {
            tokio::select! {
                () = updater.send(&states) => {}
                // The update is out of date, and other uplinks may lead to the server.
                changed = uplinks.changed() => {
                    updater.last_sent = None;
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
        }
        let changed = tokio::select! {
            changed = uplinks.changed() => changed,
            () = tokio::time::sleep(updater.pause), if updater.has_failed => {
                updater.pause = (updater.pause * 2).min(MAX_RETRY_INTERVAL);
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Knows what the server has, and what the server must have.
struct Updater {
    zone: Zone,
    update: Update,
    announced: AnnouncedRecords,
    last_errors: Arc<LastErrors>,
    /// Every name with every address that this instance may give it now.
    own: BTreeSet<(Name, Ipv4Addr)>,
    /// Update section for the states of now.
    wanted: Vec<Record>,
    /// Update section that the server has accepted; None: unknown.
    last_sent: Option<Vec<Record>>,
    /// Whether the last attempt failed.
    has_failed: bool,
    /// Time until the next attempt after a failure.
    pause: Duration,
}

impl Updater {
    fn new(zone: Zone, update: Update, last_errors: Arc<LastErrors>) -> Self {
        let path = update.announced.clone().filter(|_| update.replace == Replace::Own);
        Self {
            zone,
            update,
            announced: AnnouncedRecords::open(path),
            last_errors,
            own: BTreeSet::new(),
            wanted: Vec::new(),
            last_sent: None,
            has_failed: false,
            pause: MIN_RETRY_INTERVAL,
        }
    }

    /// Prepares the update for the states of now. Returns whether the server needs it.
    fn prepare(&mut self, states: &UplinkStates) -> bool {
        self.own = own_records(&self.zone, states);
        self.announced.add(self.own.iter().cloned());
        self.wanted = records(&self.zone, &self.update, states, self.announced.records());
        self.has_failed = false;
        self.last_sent.as_ref() != Some(&self.wanted)
    }

    /// Sends the prepared update and keeps the result. May be dropped: whether the server has the
    /// update is unknown then.
    async fn send(&mut self, states: &UplinkStates) {
        let server = self.update.server;
        match exchange::send(&self.update, &self.wanted, states).await {
            Ok(route) => {
                let in_use: Vec<_> = states.in_use().map(|uplink| uplink.name.as_str()).collect();
                let in_use = in_use.join(", ");
                tracing::info!(%server, route, in_use, "dns.update: the server accepted an update");
                self.last_errors.update.clear();
                self.announced.keep(self.own.clone());
                self.last_sent = Some(self.wanted.clone());
                self.pause = MIN_RETRY_INTERVAL;
            }
            Err(error) => {
                // Whether the update took effect is unknown.
                self.last_sent = None;
                self.has_failed = true;
                let seconds = self.pause.as_secs();
                tracing::warn!(
                    %server, error, "dns.update: the update failed; next attempt in {seconds} s"
                );
                self.last_errors.update.set(error);
            }
        }
    }
}

/// Returns every name with every address that this instance may give it now.
fn own_records(zone: &Zone, states: &UplinkStates) -> BTreeSet<(Name, Ipv4Addr)> {
    let of = |published: &PublishedName| -> Vec<_> {
        let uplinks = published.uplinks.iter().filter_map(|number| states.with_number(*number));
        let addresses = uplinks.filter_map(|uplink| uplink.address);
        addresses.map(|address| (published.name.clone(), address)).collect()
    };
    zone.published.iter().flat_map(of).collect()
}

/// Returns the update section: deletions, then additions. `announced`: the records that this
/// instance has put into the zone, or puts there now.
fn records(
    zone: &Zone,
    update: &Update,
    states: &UplinkStates,
    announced: &BTreeSet<(Name, Ipv4Addr)>,
) -> Vec<Record> {
    match update.replace {
        Replace::All => {
            let replaced = |published: &PublishedName| {
                // Deletes all addresses of the name (RFC 2136 section 2.5.2).
                let mut all = Record::update0(published.name.clone(), 0, RecordType::A);
                all.dns_class = DNSClass::ANY;
                let addresses = states.addresses_to_serve(&published.uplinks).into_iter();
                let added = addresses
                    .map(|(_, address)| record(&published.name, address, DNSClass::IN, zone.ttl));
                std::iter::once(all).chain(added).collect::<Vec<_>>()
            };
            zone.published.iter().flat_map(replaced).collect()
        }
        Replace::Own => {
            // Deletes single records (RFC 2136 section 2.5.4): all of them, so that a changed TTL
            // takes effect. The server would refuse the whole update because of a name of another
            // zone (section 3.4.1.3), which an earlier configuration may have announced.
            let past = announced.iter().filter(|(name, _)| update.zone.zone_of(name));
            let deleted = past.map(|(name, address)| record(name, *address, DNSClass::NONE, 0));
            let added = zone.published.iter().flat_map(|published| {
                let addresses = states.addresses_to_serve(&published.uplinks).into_iter();
                // While none is healthy, the name has the addresses of the other instances.
                addresses
                    .filter(|(uplink, _)| uplink.up)
                    .map(|(_, address)| record(&published.name, address, DNSClass::IN, zone.ttl))
                    .collect::<Vec<_>>()
            });
            deleted.chain(added).collect()
        }
    }
}

fn record(name: &Name, address: Ipv4Addr, class: DNSClass, ttl: u32) -> Record {
    let mut record = Record::from_rdata(name.clone(), ttl, RData::A(A(address)));
    record.dns_class = class;
    record
}

/// Pause after a failure. The pause doubles with each failure.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::testing::{name, states, zone};
    use super::*;
    use crate::uplinks::Answers;
    use crate::values::dns::Algorithm;

    /// Returns `CLASS NAME ADDRESS` for each record, or `CLASS NAME *` for a whole set.
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
        let key =
            TsigKey { name: name("k"), algorithm: Algorithm::HmacSha256, secret: vec![7; 32] };
        let server = ([192, 0, 2, 53], 53).into();
        Update { server, over_uplinks: true, zone: zone().origin, replace, announced: None, key }
    }

    #[test]
    fn an_update_replaces_the_addresses_of_each_name_by_those_of_uplinks_that_are_up() {
        let (mut zone, mut states) = (zone(), states());
        zone.published.truncate(2);
        states.uplinks[1].up = false;
        let all = |states: &UplinkStates| {
            shown(&records(&zone, &update(Replace::All), states, &BTreeSet::new()))
        };
        assert_eq!(
            all(&states),
            [
                "ANY www.example.org. *",
                "IN www.example.org. 203.0.113.1",
                "IN www.example.org. 203.0.113.3",
                "ANY example.org. *",
                "IN example.org. 203.0.113.1",
            ]
        );
        states.uplinks[0].up = false;
        let mut held = states.clone();
        held.uplinks[2].up = false;
        held.uplinks[1].answers = Answers::Poor;
        let www = |states: &UplinkStates| all(states).into_iter().nth(1);
        assert_eq!(www(&held).as_deref(), Some("IN www.example.org. 203.0.113.2"), "last resort");
        let last = all(&states).pop();
        assert_eq!(
            last.as_deref(),
            Some("IN example.org. 203.0.113.1"),
            "an old address is better than none"
        );
    }

    #[test]
    fn an_update_of_own_records_keeps_those_of_other_instances() {
        let (mut zone, mut states) = (zone(), states());
        zone.published = vec![PublishedName { name: name("www.example.org"), uplinks: vec![0, 1] }];
        states.uplinks[1].up = false;
        let mut past = own_records(&zone, &states);
        let own = |states: &UplinkStates, past: &_| {
            shown(&records(&zone, &update(Replace::Own), states, past))
        };
        let deleted = ["NONE www.example.org. 203.0.113.1", "NONE www.example.org. 203.0.113.2"];
        let found = own(&states, &past);
        assert_eq!(found[..2], deleted);
        assert_eq!(found[2..], ["IN www.example.org. 203.0.113.1"]);
        // An update deletes an address that an uplink has lost, and a name that is not published
        // any more.
        states.uplinks[0].address = Some(Ipv4Addr::new(203, 0, 113, 7));
        past.extend(own_records(&zone, &states));
        past.insert((name("old.example.org"), Ipv4Addr::new(203, 0, 113, 1)));
        past.insert((name("www.example.net"), Ipv4Addr::new(203, 0, 113, 1)));
        let found = own(&states, &past);
        let [old, ..] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(old, "NONE old.example.org. 203.0.113.1");
        assert_eq!(found[1..3], deleted);
        assert_eq!(
            found[3..],
            ["NONE www.example.org. 203.0.113.7", "IN www.example.org. 203.0.113.7"]
        );
        states.uplinks[0].up = false;
        assert_eq!(own(&states, &past).len(), 4, "nothing is added");
        states.uplinks[0].answers = Answers::Good;
        assert_eq!(own(&states, &past).len(), 4, "another instance may have a healthy uplink");
    }

    #[test]
    fn an_update_has_only_addresses_of_the_lowest_tier_that_has_an_uplink_which_is_up() {
        let (mut zone, mut states) = (zone(), states());
        zone.published.truncate(1);
        states.uplinks[2].tier = 2;
        for replace in [Replace::All, Replace::Own] {
            let added = |states: &UplinkStates| -> Vec<String> {
                let records = records(&zone, &update(replace), states, &BTreeSet::new());
                shown(&records).into_iter().filter(|record| record.starts_with("IN ")).collect()
            };
            let record = |last: u8| format!("IN www.example.org. 203.0.113.{last}");
            let mut states = states.clone();
            assert_eq!(added(&states), [record(1), record(2)]);
            states.uplinks[0].up = false;
            assert_eq!(added(&states), [record(2)]);
            states.uplinks[1].up = false;
            assert_eq!(added(&states), [record(3)]);
        }
    }
}
