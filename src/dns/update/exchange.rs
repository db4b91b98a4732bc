//! One update on its way: sent, answered, the answer believed or not.
//!
//! A *way* is by what it leaves: over a line, from the box's own address on it, or by the host's own route, which may well
//! lead over the very line that has died.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage as _};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, Record, RecordType, TSigner};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::super::uplinks::{UplinkState, UplinkStates};
use super::{Algorithm, Update};

/// By what an update leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    name: String,
    /// None: the host chooses.
    source: Option<Ipv4Addr>,
}

/// Why an update did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpdateError {
    #[error("the server cannot be reached: {0}")]
    Network(#[from] io::Error),
    #[error("the server does not answer")]
    Silent,
    #[error("the server refused it: {0}")]
    Refused(ResponseCode),
    #[error(
        "the server does not answer for the zone {0}; correct dns.update.zone, or dns.update.server"
    )]
    NoZone(String),
    #[error(
        "the server does not know the key {0} with this algorithm; give it the key under the same name"
    )]
    UnknownKey(String),
    #[error(
        "the server has another secret for the key {0}; give it the one that is in dns.update.secret_file"
    )]
    OtherSecret(String),
    #[error(
        "the server's clock and that of this host are more than {FUDGE} s apart; set them right"
    )]
    Clock,
    #[error(
        "the answer ({code}) is not signed with the key {key}; has the server at this address the key?"
    )]
    Unsigned { code: ResponseCode, key: String },
    #[error("the server's answer cannot be read: {0}")]
    Message(#[from] hickory_proto::ProtoError),
    #[error("the key cannot be used: {0}")]
    Key(#[from] hickory_proto::dnssec::DnsSecError),
}

impl UpdateError {
    /// Whether another way may do better. A server may take updates from some addresses only.
    fn depends_on_way(&self) -> bool {
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

/// Sends an update by the first way that leads to an answer; the way's name.
///
/// # Errors
/// What each way that was tried met with, as one sentence.
pub(super) async fn send(
    update: &Update,
    records: &[Record],
    lines: &UplinkStates,
) -> Result<String, String> {
    let mut errors = Vec::new();
    for Way { name, source } in ways(update, lines) {
        let asked = timeout(DEADLINE, ask(update, records, source)).await;
        match asked.unwrap_or(Err(UpdateError::Silent)) {
            Ok(()) => return Ok(name),
            Err(error) => {
                errors.push(format!("{name}: {error}"));
                if !error.depends_on_way() {
                    break;
                }
            }
        }
    }
    Err(errors.join("; "))
}

/// The ways to the server, the best first: usable lines, the others (nobody is sure that they are dead), the host's route.
fn ways(update: &Update, lines: &UplinkStates) -> Vec<Way> {
    let own_route = Way { name: "by the host's own route".to_owned(), source: None };
    // Lines are IPv4.
    if !update.over_lines || update.server.is_ipv6() {
        return vec![own_route];
    }
    let (usable, others): (Vec<&UplinkState>, Vec<&UplinkState>) =
        lines.lines.iter().partition(|line| line.up);
    let over = |line: &UplinkState| {
        let source = line.source.filter(|_| line.address.is_some())?;
        Some(Way { name: format!("over {}", line.name), source: Some(source) })
    };
    usable.into_iter().chain(others).filter_map(over).chain([own_route]).collect()
}

async fn ask(
    update: &Update,
    records: &[Record],
    source: Option<Ipv4Addr>,
) -> Result<(), UpdateError> {
    let algorithm = match update.key.algorithm {
        Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
        Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
    };
    let signer =
        TSigner::new(update.key.secret.clone(), algorithm, update.key.name.clone(), FUDGE)?;
    let mut message = message(&update.zone, records);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let verifier = message.finalize(&signer, now)?;
    let answer = exchange(update.server, source, &message.to_vec()?).await?;

    let read = Message::from_vec(&answer).map_err(hickory_proto::ProtoError::from)?;
    let is_signed = verifier.is_none_or(|mut verifier| verifier.verify(&answer).is_ok());
    if !is_signed || read.metadata.id != message.metadata.id {
        return Err(distrusted(&update.key.name, &read));
    }
    let code = read.metadata.response_code;
    if code == ResponseCode::NoError {
        return Ok(());
    }
    // RFC 2136 sections 3.1.2 and 3.4.1.3; the key is in order.
    if matches!(code, ResponseCode::NotAuth | ResponseCode::NotZone) {
        return Err(UpdateError::NoZone(update.zone.to_ascii()));
    }
    Err(UpdateError::Refused(code))
}

/// What is wrong with an answer that proves nothing, by its own word (RFC 8945 section 5.2).
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

/// RFC 2136 section 2: the zone as question, no prerequisites.
fn message(zone: &Name, records: &[Record]) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(zone.clone(), RecordType::SOA));
    message.add_updates(records.to_vec());
    message
}

/// Sends a message by TCP and reads what comes back.
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
    // What is given up is not sent any more: over a line that comes back, it would undo what was told since.
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    sockopt::set_socket_linger(&stream, None)?;
    Ok(answer)
}

/// How long the server may take by each way.
const DEADLINE: Duration = Duration::from_secs(3);
/// Seconds by which the clocks may differ (RFC 8945 section 10).
const FUDGE: u16 = 300;

#[cfg(test)]
mod tests;
