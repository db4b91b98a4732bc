//! One update: sent, answered, and the answer verified.
//!
//! A *route* is what an update leaves by: an uplink, from the probe address of the uplink, or the
//! host's own routes, which may lead over a failed uplink.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::dnssec::DnsSecError;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage as _};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, Record, RecordType, TSigVerifier, TSigner};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::settings::{TsigKey, Update};
use crate::uplinks::{UplinkState, UplinkStates};
use crate::values::dns::Algorithm;

/// What an update leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UpdateRoute {
    name: String,
    /// Source address; None: the host's routing tables decide.
    source: Option<Ipv4Addr>,
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::dns) enum UpdateError {
    #[error("the server cannot be reached: {0}")]
    Network(#[from] io::Error),
    #[error("the server does not answer")]
    Silent,
    #[error("the server refused the update: {0}")]
    Refused(ResponseCode),
    #[error(
        "the server does not answer for the zone {0}; correct dns.update.zone, or dns.update.server"
    )]
    NoZone(String),
    #[error(
        "the server does not know the key {0} with this algorithm; configure the same key there"
    )]
    UnknownKey(String),
    #[error("the server has another secret for the key {0}; use the one in dns.update.secret_file")]
    OtherSecret(String),
    #[error(
        "the clocks of the server and of this host differ by more than {FUDGE} s; set them right"
    )]
    Clock,
    #[error("the answer ({code}) is not signed with the key {key}; check dns.update.server")]
    Unsigned { code: ResponseCode, key: String },
    #[error("the server's answer cannot be read: {0}")]
    Message(#[from] hickory_proto::ProtoError),
    #[error("the key cannot be used: {0}")]
    Key(#[from] DnsSecError),
}

impl UpdateError {
    /// Returns whether another route may succeed. A server may accept updates from some addresses
    /// only.
    fn depends_on_route(&self) -> bool {
        match self {
            Self::Network(_) | Self::Silent | Self::Refused(ResponseCode::Refused) => true,
            Self::Refused(_)
            | Self::NoZone(_)
            | Self::UnknownKey(_)
            | Self::OtherSecret(_)
            | Self::Clock
            | Self::Unsigned { .. }
            | Self::Message(_)
            | Self::Key(_) => false,
        }
    }
}

/// Sends an update by the first route that leads to an answer. Returns the name of the route.
///
/// # Errors
/// The error of each route that was tried, as one sentence.
pub(super) async fn send(
    update: &Update,
    records: &[Record],
    states: &UplinkStates,
) -> Result<String, String> {
    let mut errors = Vec::new();
    for UpdateRoute { name, source } in routes(update, states) {
        let asked = timeout(DEADLINE, ask(update, records, source)).await;
        match asked.unwrap_or(Err(UpdateError::Silent)) {
            Ok(()) => return Ok(name),
            Err(error) => {
                errors.push(format!("{name}: {error}"));
                if !error.depends_on_route() {
                    break;
                }
            }
        }
    }
    Err(errors.join("; "))
}

/// Returns the routes to the server: the uplinks up to the tier in use, by rank and tier (the check
/// of a failed uplink may be wrong), and last the host's own routes. These may lead over any
/// interface, also that of a backup uplink: a late withdrawal is worse than a few packets there.
fn routes(update: &Update, states: &UplinkStates) -> Vec<UpdateRoute> {
    let own_route = UpdateRoute { name: "by the host's own route".to_owned(), source: None };
    // Uplinks are IPv4.
    if !update.over_uplinks || update.server.is_ipv6() {
        return vec![own_route];
    }
    let tier = states.tier_in_use();
    let mut uplinks: Vec<&UplinkState> = states.uplinks.iter().collect();
    uplinks.retain(|uplink| tier.is_none_or(|tier| uplink.tier <= tier));
    uplinks.sort_by_key(|uplink| (uplink.rank(), uplink.tier));
    let over = |uplink: &UplinkState| {
        let source = uplink.source.filter(|_| uplink.address.is_some())?;
        Some(UpdateRoute { name: format!("over {}", uplink.name), source: Some(source) })
    };
    uplinks.into_iter().filter_map(over).chain([own_route]).collect()
}

async fn ask(
    update: &Update,
    records: &[Record],
    source: Option<Ipv4Addr>,
) -> Result<(), UpdateError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signed = SignedUpdate::new(update, records, now)?;
    let answer = exchange(update.server, source, &signed.bytes).await?;
    signed.check(update, &answer)
}

/// An update that is ready to be sent.
pub(in crate::dns) struct SignedUpdate {
    /// The message.
    pub(in crate::dns) bytes: Vec<u8>,
    id: u16,
    verifier: Option<TSigVerifier>,
}

impl SignedUpdate {
    /// Makes an update. `now`: seconds since 1970.
    pub(in crate::dns) fn new(
        update: &Update,
        records: &[Record],
        now: u64,
    ) -> Result<Self, UpdateError> {
        let mut message = message(&update.zone, records);
        let verifier = message.finalize(&signer(update)?, now)?;
        Ok(Self { bytes: message.to_vec()?, id: message.metadata.id, verifier })
    }

    /// Returns whether the server has accepted the update, as its answer says.
    ///
    /// # Errors
    /// The server has not accepted the update, or the answer is not signed with the key.
    pub(in crate::dns) fn check(self, update: &Update, answer: &[u8]) -> Result<(), UpdateError> {
        let read = Message::from_vec(answer).map_err(hickory_proto::ProtoError::from)?;
        let is_signed = self.verifier.is_none_or(|mut verifier| verifier.verify(answer).is_ok());
        if !is_signed || read.metadata.id != self.id {
            return Err(distrusted(&update.key.name, &read));
        }
        let code = read.metadata.response_code;
        if code == ResponseCode::NoError {
            return Ok(());
        }
        // RFC 2136 sections 3.1.2 and 3.4.1.3. The signature shows that the key is right.
        if matches!(code, ResponseCode::NotAuth | ResponseCode::NotZone) {
            return Err(UpdateError::NoZone(update.zone.to_ascii()));
        }
        Err(UpdateError::Refused(code))
    }
}

/// Makes the signer of an update's key.
pub(in crate::dns) fn signer(update: &Update) -> Result<TSigner, DnsSecError> {
    let TsigKey { name, algorithm, secret } = update.key.clone();
    let algorithm = match algorithm {
        Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    TSigner::new(secret, algorithm, name, FUDGE)
}

/// Returns what is wrong with an answer that is not verified, as the answer itself says (RFC 8945
/// section 5.2).
fn distrusted(key: &Name, answer: &Message) -> UpdateError {
    let key = key.to_ascii();
    match answer.signature().and_then(|signature| signature.data.error) {
        Some(TsigError::BadKey) => UpdateError::UnknownKey(key),
        Some(TsigError::BadSig | TsigError::BadTrunc) => UpdateError::OtherSecret(key),
        Some(TsigError::BadTime) => UpdateError::Clock,
        Some(TsigError::Unknown(_)) | None => {
            UpdateError::Unsigned { code: answer.metadata.response_code, key }
        }
    }
}

/// Makes the message: the zone as query, no prerequisites (RFC 2136 section 2).
fn message(zone: &Name, records: &[Record]) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(zone.clone(), RecordType::SOA));
    message.add_updates(records.to_vec());
    message
}

/// Sends a message by TCP and reads the answer.
async fn exchange(
    server: SocketAddr,
    source: Option<Ipv4Addr>,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = match source {
        None => TcpStream::connect(server).await?,
        Some(source) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(server).await?
        }
    };
    // The kernel must not send an abandoned update later: over a recovered uplink, it would undo a
    // newer update.
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let answer = read_answer(&mut stream).await?;
    sockopt::set_socket_linger(&stream, None)?;
    Ok(answer)
}

/// Reads an answer behind its length (RFC 1035 section 4.2.2).
pub(in crate::dns) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// How long the server may take by each route.
const DEADLINE: Duration = Duration::from_secs(3);
/// Most seconds by which the clocks may differ (RFC 8945 section 10).
const FUDGE: u16 = 300;

#[cfg(test)]
mod tests;
