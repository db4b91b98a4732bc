//! From the bytes of a message to the bytes of its answer.
//!
//! ```text
//!   bytes ─ first look ─▶ Request (hickory-server) ─ RequestHandler ─▶ answer::answer ─ Reply ─▶ bytes
//!            │ header alone: no answer, FORMERR, NOTIMP
//! ```
//!
//! hickory-server reads requests and builds responses; its own sockets are not used, because they take any number of
//! connections, answer without a limit, reserve memory for as many questions as a message claims to hold, and log a line
//! with the client's address for each.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::TSIG;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use hickory_server::net::NetError;
use hickory_server::net::runtime::{Time, TokioTime};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer::{Answer, answer};
use super::counters::Counters;
use super::uplinks::UplinkStates;
use super::zone::Zone;

/// Answers what a zone has to say.
#[derive(Debug)]
pub(super) struct Responder {
    zone: Zone,
    lines: watch::Receiver<UplinkStates>,
    pub counters: Arc<Counters>,
}

/// What goes back for a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Nothing: the message asks for none.
    None,
    /// An answer as it was meant.
    Full(Vec<u8>),
    /// The question alone, marked as truncated, because the answer is too long for a datagram.
    Cut(Vec<u8>),
}

impl Responder {
    /// Answers for `zone`, each time by what `lines` has to say then.
    pub fn new(zone: Zone, lines: watch::Receiver<UplinkStates>, counters: Arc<Counters>) -> Self {
        Self { zone, lines, counters }
    }

    /// Answers a message. `cut`: with its question alone, whatever the answer would be.
    pub async fn respond(
        &self,
        message: &[u8],
        client: SocketAddr,
        protocol: Protocol,
        cut: bool,
    ) -> Response {
        let header = match first_look(message) {
            Look::Ignore => return Response::None,
            Look::Refuse(header, code) => return refusal(header, code),
            Look::Read(header) => header,
        };
        let Ok(request) = Request::from_bytes(message.to_vec(), client, protocol) else {
            return refusal(header, ResponseCode::FormErr);
        };
        let by_udp = protocol == Protocol::Udp;
        let most =
            if by_udp { most_by_udp(message.len(), request.max_payload()) } else { u16::MAX };
        let reply = Reply::new(most);
        if cut {
            self.send_cut(&request, reply.clone()).await;
        } else {
            self.handle_request::<_, TokioTime>(&request, reply.clone()).await;
        }
        reply.into_response()
    }

    /// Sends the question back, marked as truncated.
    async fn send_cut(&self, request: &Request, mut reply: impl ResponseHandler) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.truncation = true;
        let edns = edns(request);
        let response =
            MessageResponseBuilder::new(&request.queries, edns.as_ref()).build_no_records(metadata);
        sent(request, reply.send_response(response).await)
    }

    fn answer(&self, request: &Request) -> Answer {
        let code = |code| Answer { code, ..Answer::default() };
        if request.signature.is_some() {
            // RFC 8945 section 5.2.1: no key is known here.
            return code(ResponseCode::NotAuth);
        }
        if request.version() != 0 {
            // RFC 6891 section 6.1.3.
            return code(ResponseCode::BADVERS);
        }
        match request.queries.queries() {
            [question] => {
                answer(&self.zone, &self.lines.borrow(), question.original(), rand::random())
            }
            _ => code(ResponseCode::FormErr),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut reply: R,
    ) -> ResponseInfo {
        let Answer { code, authoritative, answers, authority, additional } = self.answer(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = authoritative;
        let edns = edns(request);
        // RFC 2181 section 9: what only helps is left out without a word where there is no room for it.
        for additional in [additional.as_slice(), &[]] {
            let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
            let mut response = builder.build(metadata, &answers, &authority, [], additional);
            if let Some(signature) = unknown_key(request) {
                response.set_signature(signature);
            }
            let info = sent(request, reply.send_response(response).await);
            if !info.truncation {
                return info;
            }
        }
        // An answer that fits only in part is of no use to anybody.
        self.send_cut(request, reply).await
    }
}

/// Where the response is written to.
#[derive(Clone, Debug)]
struct Reply {
    most: u16,
    written: Arc<Mutex<Option<Written>>>,
}

#[derive(Debug)]
struct Written {
    truncated: bool,
    bytes: Vec<u8>,
}

impl Reply {
    fn new(most: u16) -> Self {
        Self { most, written: Arc::default() }
    }

    fn into_response(self) -> Response {
        match self.written.lock().take() {
            None => Response::None,
            Some(Written { truncated: true, bytes }) => Response::Cut(bytes),
            Some(Written { truncated: false, bytes }) => Response::Full(bytes),
        }
    }
}

#[async_trait::async_trait]
impl ResponseHandler for Reply {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.most);
        let info = response.destructive_emit(&mut encoder)?;
        *self.written.lock() = Some(Written { truncated: info.truncation, bytes });
        Ok(info)
    }
}

/// Whether a message is no question at all, so that nothing goes back for it.
pub(super) fn is_not_a_query(message: &[u8]) -> bool {
    matches!(first_look(message), Look::Ignore)
}

/// What the first twelve bytes say.
enum Look {
    /// It is no question.
    Ignore,
    /// It cannot be answered.
    Refuse(Metadata, ResponseCode),
    /// It may be a question.
    Read(Metadata),
}

/// Looks at the header, before anything else is read on the word of a stranger.
fn first_look(message: &[u8]) -> Look {
    let Ok(Header { metadata, counts }) = Header::read(&mut BinDecoder::new(message)) else {
        return Look::Ignore;
    };
    if metadata.message_type == MessageType::Response {
        // Two servers would talk for ever.
        return Look::Ignore;
    }
    if metadata.op_code != OpCode::Query {
        return Look::Refuse(metadata, ResponseCode::NotImp);
    }
    // One question; nothing but EDNS and a signature may come with it.
    match counts {
        HeaderCounts { queries: 1, answers: 0, authorities: 0, additionals: 0..=2 } => {
            Look::Read(metadata)
        }
        HeaderCounts { .. } => Look::Refuse(metadata, ResponseCode::FormErr),
    }
}

/// A header alone.
fn refusal(request: Metadata, code: ResponseCode) -> Response {
    let mut metadata = Metadata::response_from_request(&request);
    metadata.response_code = code;
    let header = Header { metadata, counts: HeaderCounts::default() };
    header.to_bytes().map_or(Response::None, Response::Full)
}

/// What goes back for a signature, since no key is known here: the same without the code that proves it, as RFC 8945
/// sections 5.2.1 and 5.3.2 have it.
fn unknown_key(request: &Request) -> Option<Box<Record<TSIG>>> {
    let mut answer = request.signature.clone()?;
    answer.data.mac.clear();
    answer.data.other.clear();
    answer.data.error = Some(TsigError::BadKey);
    Some(answer)
}

/// EDNS of a response: present if it is in the request (RFC 6891 section 6.1.1), with the bit that a request for DNSSEC
/// sets (RFC 3225 section 3) and without any option.
fn edns(request: &Request) -> Option<Edns> {
    let asked = request.edns.as_ref()?;
    let mut edns = Edns::new();
    edns.set_version(0).set_max_payload(MAX_UDP_ANSWER).set_dnssec_ok(asked.flags().dnssec_ok);
    Some(edns)
}

/// Bytes of a datagram that answers a request of `asked` bytes whose sender takes `payload`.
fn most_by_udp(asked: usize, payload: u16) -> u16 {
    let most = asked.saturating_mul(MAX_AMPLIFICATION).min(usize::from(MAX_UDP_ANSWER));
    payload.min(most as u16)
}

/// How it went; a response that could not be written counts as a failure of the server.
fn sent(request: &Request, result: Result<ResponseInfo, NetError>) -> ResponseInfo {
    result.unwrap_or_else(|error| {
        tracing::debug!(%error, "a response could not be written");
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = ResponseCode::ServFail;
        Header { metadata, counts: HeaderCounts::default() }.into()
    })
}

/// Largest datagram, in bytes: it is not fragmented on any usual path (DNS flag day 2020).
const MAX_UDP_ANSWER: u16 = 1232;

/// A datagram is at most so many times as long as the one that it answers, so that a forged source makes nobody's
/// flood larger than this: what does not fit goes by TCP.
const MAX_AMPLIFICATION: usize = 6;

#[cfg(test)]
mod tests;
