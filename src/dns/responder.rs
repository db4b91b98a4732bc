//! From the bytes of a message to the bytes of its answer.
//!
//! ```text
//!   bytes ─ check_header ─▶ Request (hickory) ─ RequestHandler ─▶ answer::answer ─ Reply ─▶ bytes
//!            │ header alone: no answer, FORMERR, NOTIMP
//! ```
//!
//! hickory-server reads requests and builds responses. natbox does not use the sockets of
//! hickory-server, because they
//!
//! * accept any number of connections,
//! * answer without a limit,
//! * reserve memory for as many queries as a message claims to hold,
//! * log a line with the client's address for each query.

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

use super::answer::{ZoneAnswer, answer};
use super::counters::Counters;
use super::zone::Zone;
use crate::uplinks::UplinkStates;

/// Answers messages from a zone and the states of the uplinks.
#[derive(Debug)]
pub(super) struct Responder {
    zone: Zone,
    uplinks: watch::Receiver<UplinkStates>,
    pub counters: Arc<Counters>,
}

/// Bytes that the server sends back for a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseBytes {
    /// Nothing: the message is no query.
    None,
    /// The whole answer.
    Full(Vec<u8>),
    /// The query alone, marked as truncated, because the answer is too long for a datagram.
    Truncated(Vec<u8>),
}

/// How much of an answer the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole answer, if it fits.
    Full,
    /// The query alone, marked as truncated.
    QueryAlone,
}

impl Responder {
    /// Makes a responder that answers from `zone` and from the states that `uplinks` has at each
    /// query.
    pub(super) fn new(
        zone: Zone,
        uplinks: watch::Receiver<UplinkStates>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { zone, uplinks, counters }
    }

    /// Answers a message: in full, or with the query alone.
    pub(super) async fn respond(
        &self,
        message: &[u8],
        client: SocketAddr,
        protocol: Protocol,
        extent: Extent,
    ) -> ResponseBytes {
        let header = match check_header(message) {
            HeaderCheck::Ignore => return ResponseBytes::None,
            HeaderCheck::Refuse(header, code) => return refusal(header, code),
            HeaderCheck::Read(header) => header,
        };
        let Ok(request) = Request::from_bytes(message.to_vec(), client, protocol) else {
            return refusal(header, ResponseCode::FormErr);
        };
        let by_udp = protocol == Protocol::Udp;
        let max_size =
            if by_udp { max_udp_size(message.len(), request.max_payload()) } else { u16::MAX };
        let reply = Reply::new(max_size);
        match extent {
            Extent::Full => {
                self.handle_request::<_, TokioTime>(&request, reply.clone()).await;
            }
            Extent::QueryAlone => {
                self.send_truncated(&request, reply.clone()).await;
            }
        }
        reply.into_response()
    }

    /// Sends the query back, marked as truncated.
    async fn send_truncated(
        &self,
        request: &Request,
        mut reply: impl ResponseHandler,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.truncation = true;
        let edns = edns(request);
        let response =
            MessageResponseBuilder::new(&request.queries, edns.as_ref()).build_no_records(metadata);
        sent(request, reply.send_response(response).await)
    }

    fn answer(&self, request: &Request) -> ZoneAnswer {
        let code = |code| ZoneAnswer { code, ..ZoneAnswer::default() };
        if request.signature.is_some() {
            // This server knows no key (RFC 8945 section 5.2.1).
            return code(ResponseCode::NotAuth);
        }
        if request.version() != 0 {
            // RFC 6891 section 6.1.3.
            return code(ResponseCode::BADVERS);
        }
        match request.queries.queries() {
            [question] => {
                answer(&self.zone, &self.uplinks.borrow(), question.original(), rand::random())
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
        let ZoneAnswer { code, authoritative, answers, authority, additional } =
            self.answer(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = authoritative;
        let edns = edns(request);
        // Additional records are left out, without truncation, if they do not fit (RFC 2181 section
        // 9).
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
        // No client can use a part of an answer.
        self.send_truncated(request, reply).await
    }
}

/// Takes the response that hickory-server writes.
#[derive(Clone, Debug)]
struct Reply {
    /// Most bytes of the response.
    max_size: u16,
    written: Arc<Mutex<Option<Written>>>,
}

#[derive(Debug)]
struct Written {
    truncated: bool,
    bytes: Vec<u8>,
}

impl Reply {
    fn new(max_size: u16) -> Self {
        Self { max_size, written: Arc::default() }
    }

    fn into_response(self) -> ResponseBytes {
        match self.written.lock().take() {
            None => ResponseBytes::None,
            Some(Written { truncated: true, bytes }) => ResponseBytes::Truncated(bytes),
            Some(Written { truncated: false, bytes }) => ResponseBytes::Full(bytes),
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
        encoder.set_max_size(self.max_size);
        let info = response.destructive_emit(&mut encoder)?;
        *self.written.lock() = Some(Written { truncated: info.truncation, bytes });
        Ok(info)
    }
}

/// Returns whether a message is no query, so that the server sends nothing back.
pub(super) fn is_not_a_query(message: &[u8]) -> bool {
    matches!(check_header(message), HeaderCheck::Ignore)
}

/// What the header of a message allows.
enum HeaderCheck {
    /// The message is no query.
    Ignore,
    /// The message cannot be answered.
    Refuse(Metadata, ResponseCode),
    /// The message may be a query.
    Read(Metadata),
}

/// Checks the header before the rest of an untrusted message is read.
fn check_header(message: &[u8]) -> HeaderCheck {
    let Ok(Header { metadata, counts }) = Header::read(&mut BinDecoder::new(message)) else {
        return HeaderCheck::Ignore;
    };
    if metadata.message_type == MessageType::Response {
        // An answer to an answer would make two servers talk for ever.
        return HeaderCheck::Ignore;
    }
    if metadata.op_code != OpCode::Query {
        return HeaderCheck::Refuse(metadata, ResponseCode::NotImp);
    }
    // One query. Only EDNS and a signature may come with it.
    match counts {
        HeaderCounts { queries: 1, answers: 0, authorities: 0, additionals: 0..=2 } => {
            HeaderCheck::Read(metadata)
        }
        HeaderCounts { .. } => HeaderCheck::Refuse(metadata, ResponseCode::FormErr),
    }
}

/// Makes a response of a header alone.
fn refusal(request: Metadata, code: ResponseCode) -> ResponseBytes {
    let mut metadata = Metadata::response_from_request(&request);
    metadata.response_code = code;
    let header = Header { metadata, counts: HeaderCounts::default() };
    header.to_bytes().map_or(ResponseBytes::None, ResponseBytes::Full)
}

/// Makes the signature that goes back for a signature, because this server knows no key: the same
/// without the MAC (RFC 8945 sections 5.2.1 and 5.3.2).
fn unknown_key(request: &Request) -> Option<Box<Record<TSIG>>> {
    let mut answer = request.signature.clone()?;
    answer.data.mac.clear();
    answer.data.other.clear();
    answer.data.error = Some(TsigError::BadKey);
    Some(answer)
}

/// Makes the EDNS record of a response: present if the request has one (RFC 6891 section 6.1.1),
/// with the request's DNSSEC bit (RFC 3225 section 3) and without any option.
fn edns(request: &Request) -> Option<Edns> {
    let asked = request.edns.as_ref()?;
    let mut edns = Edns::new();
    edns.set_version(0).set_max_payload(MAX_UDP_ANSWER).set_dnssec_ok(asked.flags().dnssec_ok);
    Some(edns)
}

/// Returns the most bytes of a datagram that answers a request of `asked` bytes whose sender
/// accepts `payload` bytes.
fn max_udp_size(asked: usize, payload: u16) -> u16 {
    let most = asked.saturating_mul(MAX_AMPLIFICATION).min(usize::from(MAX_UDP_ANSWER));
    payload.min(most as u16)
}

/// Unwraps the result of sending. A response that could not be written counts as a failure of the
/// server.
fn sent(request: &Request, result: Result<ResponseInfo, NetError>) -> ResponseInfo {
    result.unwrap_or_else(|error| {
        tracing::debug!(%error, "a response could not be written");
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = ResponseCode::ServFail;
        Header { metadata, counts: HeaderCounts::default() }.into()
    })
}

/// Largest datagram in bytes: no usual path fragments it (DNS flag day 2020).
const MAX_UDP_ANSWER: u16 = 1232;

/// Most times that an answer is longer than its query. A longer answer goes by TCP, so an attacker
/// who forges the source of queries cannot amplify a flood beyond this factor.
const MAX_AMPLIFICATION: usize = 6;

#[cfg(test)]
mod tests;
