//! Tells the server where the zone lives which addresses are usable: RFC 2136 updates, signed (TSIG, RFC 8945).
//!
//! The state is told, not the change: an update that did not arrive is made up for by the next one, and sending one twice
//! does no harm. It goes by TCP.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage as _};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::lines::Snapshot;
use super::zone::{Published, Zone};

/// Whom to tell, and how.
#[derive(Clone, Debug)]
pub struct Update {
    /// The server.
    pub server: SocketAddr,
    /// The zone there that holds the published names.
    pub zone: Name,
    /// What is replaced.
    pub scope: Scope,
    /// The key that both know.
    pub key: Key,
}

/// Which records an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
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
    let secret = BASE64.decode(text.trim().as_bytes()).map_err(|error| not_base64(error.to_string()))?;
    if secret.is_empty() { Err(not_base64("the file is empty".to_owned())) } else { Ok(secret) }
}

/// Sends an update at once and at every change, for ever; what fails is tried again.
pub(super) async fn follow(zone: Zone, update: Update, mut lines: watch::Receiver<Snapshot>) {
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Vec<Record>> = None;
    let mut past = BTreeSet::new();
    loop {
        let (wanted, usable) = {
            let lines = lines.borrow_and_update();
            let usable = lines.lines.iter().filter(|line| line.usable).map(|line| line.name.as_str());
            past.extend(lines.lines.iter().filter_map(|line| line.address));
            (records(&zone, update.scope, &lines, &past), usable.collect::<Vec<_>>().join(", "))
        };
        let mut again = false;
        if told.as_ref() != Some(&wanted) {
            match timeout(DEADLINE, send(&update, &wanted)).await.unwrap_or(Err(UpdateError::Silent)) {
                Ok(()) => {
                    tracing::info!(server = %update.server, usable, "DNS updated");
                    told = Some(wanted);
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    // Whether it took effect is unknown.
                    told = None;
                    again = true;
                    let seconds = pause.as_secs();
                    tracing::warn!(server = %update.server, %error, "DNS not updated; tried again in {seconds} s");
                }
            }
        }
        let changed = tokio::select! {
            changed = lines.changed() => changed,
            () = tokio::time::sleep(pause), if again => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Why an update did not succeed.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error("the server cannot be reached: {0}")]
    Network(#[from] io::Error),
    #[error("the server does not answer")]
    Silent,
    #[error("the server refused it: {0}")]
    Refused(ResponseCode),
    #[error(
        "the server's answer ({code}) is not signed as it should be: {reason}; have both the same key and the same time?"
    )]
    Unsigned { code: ResponseCode, reason: String },
    #[error("the message makes no sense: {0}")]
    Message(#[from] hickory_proto::ProtoError),
    #[error("the key cannot be used: {0}")]
    Key(#[from] hickory_proto::dnssec::DnsSecError),
}

/// The update section: what is deleted, then what is added. `past`: every address that this box's lines have had.
fn records(zone: &Zone, scope: Scope, lines: &Snapshot, past: &BTreeSet<Ipv4Addr>) -> Vec<Record> {
    zone.published.iter().flat_map(|published| records_of(zone, published, scope, lines, past)).collect()
}

fn records_of(
    zone: &Zone,
    published: &Published,
    scope: Scope,
    lines: &Snapshot,
    past: &BTreeSet<Ipv4Addr>,
) -> Vec<Record> {
    let record = |address, class, ttl| {
        let mut record = Record::from_rdata(published.name.clone(), ttl, RData::A(A(address)));
        record.dns_class = class;
        record
    };
    let added = |address| record(address, DNSClass::IN, zone.ttl);
    match scope {
        Scope::All => {
            // RFC 2136 section 2.5.2: deletes the set.
            let mut all = Record::update0(published.name.clone(), 0, RecordType::A);
            all.dns_class = DNSClass::ANY;
            let usable = lines.answerable(&published.lines);
            std::iter::once(all).chain(usable.into_iter().map(|(_, address)| added(address))).collect()
        }
        Scope::Own => {
            // RFC 2136 section 2.5.4: deletes one record. All of them, so that a changed TTL takes effect.
            let deleted = past.iter().map(|address| record(*address, DNSClass::NONE, 0));
            let own = published.lines.iter().filter_map(|number| lines.lines.get(*number));
            let usable = own.filter(|line| line.usable).filter_map(|line| line.address);
            deleted.chain(usable.map(added)).collect()
        }
    }
}

async fn send(update: &Update, records: &[Record]) -> Result<(), UpdateError> {
    let algorithm = match update.key.algorithm {
        Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    let signer = TSigner::new(update.key.secret.clone(), algorithm, update.key.name.clone(), FUDGE)?;
    let mut message = message(&update.zone, records);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let verifier = message.finalize(&signer, now)?;
    let bytes = message.to_vec()?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;

    let mut stream = TcpStream::connect(update.server).await?;
    stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;

    let unsigned = Message::from_vec(&answer).map_err(hickory_proto::ProtoError::from)?;
    let code = unsigned.metadata.response_code;
    if let Some(mut verifier) = verifier {
        verifier
            .verify(&answer)
            .map_err(|error| UpdateError::Unsigned { code, reason: error.to_string() })?;
    }
    if unsigned.metadata.id != message.metadata.id {
        return Err(UpdateError::Unsigned { code, reason: "it answers something else".to_owned() });
    }
    if code == ResponseCode::NoError { Ok(()) } else { Err(UpdateError::Refused(code)) }
}

/// RFC 2136 section 2: the zone as question, no prerequisites.
fn message(zone: &Name, records: &[Record]) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(zone.clone(), RecordType::SOA));
    message.add_updates(records.to_vec());
    message
}

/// How long the server may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between attempts: doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Seconds by which the clocks may differ (RFC 8945 section 10).
const FUDGE: u16 = 300;

#[cfg(test)]
mod tests {
    use super::super::testing::{lines, name, zone};
    use super::*;

    /// `CLASS NAME ADDRESS`, or `CLASS NAME *` where the whole set is meant.
    fn shown(records: &[Record]) -> Vec<String> {
        let data = |record: &Record| {
            if let RData::A(A(address)) = &record.data { address.to_string() } else { "*".to_owned() }
        };
        records
            .iter()
            .map(|record| format!("{} {} {}", record.dns_class, record.name, data(record)))
            .collect()
    }

    #[test]
    fn an_update_replaces_the_addresses_of_each_name_by_the_usable_ones() {
        let (mut zone, mut lines) = (zone(), lines());
        zone.published.truncate(2);
        lines.lines[1].usable = false;
        assert_eq!(
            shown(&records(&zone, Scope::All, &lines, &BTreeSet::new())),
            [
                "ANY www.example.org. *",
                "IN www.example.org. 203.0.113.1",
                "IN www.example.org. 203.0.113.3",
                "ANY example.org. *",
                "IN example.org. 203.0.113.1",
            ]
        );
        lines.lines[0].usable = false;
        let last = shown(&records(&zone, Scope::All, &lines, &BTreeSet::new())).pop();
        assert_eq!(last.as_deref(), Some("IN example.org. 203.0.113.1"), "dead data is better than none");
    }

    #[test]
    fn an_update_of_its_own_records_leaves_those_of_other_boxes_alone() {
        let (mut zone, mut lines) = (zone(), lines());
        zone.published = vec![Published { name: name("www.example.org"), lines: vec![0, 1] }];
        lines.lines[1].usable = false;
        let mut past: BTreeSet<_> = lines.lines[..2].iter().filter_map(|line| line.address).collect();
        let deleted = ["NONE www.example.org. 203.0.113.1", "NONE www.example.org. 203.0.113.2"];
        let found = shown(&records(&zone, Scope::Own, &lines, &past));
        assert_eq!(found[..2], deleted);
        assert_eq!(found[2..], ["IN www.example.org. 203.0.113.1"]);
        // An address that a line has no more is taken out, too.
        lines.lines[0].address = Some(Ipv4Addr::new(203, 0, 113, 7));
        past.extend(lines.lines[0].address);
        let found = shown(&records(&zone, Scope::Own, &lines, &past));
        assert_eq!(found[..2], deleted);
        assert_eq!(found[2..], ["NONE www.example.org. 203.0.113.7", "IN www.example.org. 203.0.113.7"]);
        lines.lines[0].usable = false;
        assert_eq!(shown(&records(&zone, Scope::Own, &lines, &past)).len(), 3, "nothing is added");
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
            read_secret(&directory.path().join("none")).unwrap_err().to_string().contains("No such file")
        );
        let key = Key { name: name("k"), algorithm: Algorithm::HmacSha256, secret: b"hidden".to_vec() };
        let shown = format!("{key:?}");
        assert!(!shown.contains("104") && !shown.contains("hidden"), "{shown}");
    }
}
