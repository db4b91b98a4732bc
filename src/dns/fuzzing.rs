//! The name server and the updates of another server without their sockets, for fuzz targets.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::TSigResponseContext;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_server::net::xfer::Protocol;

use super::responder::{Extent, Responder, ResponseBytes};
use super::testing::{name, set_up, uplinks, zone};
use super::update::exchange::{SignedUpdate, read_answer, signer};
use super::{TsigKey, Update};
use crate::values::dns::{Algorithm, Replace};

/// How a query arrives at the name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryTransport {
    /// By UDP.
    Udp,
    /// By UDP, from a source that has used up its rate.
    UdpAboveRate,
    /// By TCP.
    Tcp,
}

/// Answers a message as the name server of a zone with three uplinks does. None: the message gets
/// no answer. Bit *n* of `up`: uplink *n* is up.
pub fn answer_query(message: &[u8], transport: QueryTransport, up: u8) -> Option<Vec<u8>> {
    let uplinks = uplinks();
    (0..3).for_each(|uplink| set_up(&uplinks, uplink, up >> uplink & 1 == 1));
    let responder = Responder::new(zone(), uplinks.watch(), Arc::default());
    let (protocol, extent) = match transport {
        QueryTransport::Udp => (Protocol::Udp, Extent::Full),
        QueryTransport::UdpAboveRate => (Protocol::Udp, Extent::QueryAlone),
        QueryTransport::Tcp => (Protocol::Tcp, Extent::Full),
    };
    let client = SocketAddr::from(([192, 0, 2, 1], 4000));
    match at_once(responder.respond(message, client, protocol, extent)) {
        ResponseBytes::None => None,
        ResponseBytes::Full(answer) | ResponseBytes::Truncated(answer) => Some(answer),
    }
}

/// An update that waits for the answer of the other server.
pub struct UpdateExchange {
    update: Update,
    signed: SignedUpdate,
}

impl UpdateExchange {
    /// Makes an update of no record.
    pub fn new() -> Self {
        let key =
            TsigKey { name: name("k"), algorithm: Algorithm::HmacSha256, secret: vec![7; 32] };
        let update = Update {
            server: SocketAddr::from(([192, 0, 2, 53], 53)),
            over_uplinks: true,
            zone: zone().origin,
            replace: Replace::All,
            announced: None,
            key,
        };
        let signed = SignedUpdate::new(&update, &[], NOW).expect("the key can sign");
        Self { update, signed }
    }

    /// Makes the answer of a server with the response code `code`, without a signature.
    pub fn bare_answer(&self, code: u16) -> Vec<u8> {
        self.answer(code).to_vec().expect("an answer of a header and a query")
    }

    /// Makes the answer of a server that has the key, and whose clock is `late` seconds ahead.
    /// `error`: the error of the signature, 0 for none.
    pub fn signed_answer(&self, code: u16, late: i32, error: u16) -> Vec<u8> {
        let request = Message::from_vec(&self.signed.bytes).expect("natbox made the message");
        let mac = request.signature().expect("natbox signs updates").data.mac.clone();
        let key = signer(&self.update).expect("the key can sign");
        let now = NOW.saturating_add_signed(late.into());
        let id = request.metadata.id;
        let context = match error {
            0 => TSigResponseContext::new(id, now, key, mac, None),
            16 => TSigResponseContext::bad_signature(id, now, key),
            17 => TSigResponseContext::unknown_key(id, now, self.update.key.name.clone()),
            error => TSigResponseContext::new(id, now, key, mac, Some(TsigError::from(error))),
        };
        let mut answer = self.answer(code);
        let signature = context.sign(&self.bare_answer(code)).expect("the key can sign");
        answer.set_signature(signature);
        answer.to_vec().expect("an answer with a signature")
    }

    fn answer(&self, code: u16) -> Message {
        let request = Message::from_vec(&self.signed.bytes).expect("natbox made the message");
        let mut answer = Message::query();
        answer.metadata = Metadata::response_from_request(&request.metadata);
        answer.metadata.response_code = ResponseCode::from(0, code as u8 & 15);
        answer
    }

    /// Reads what the server sends in the connection, its length first, as natbox reads it.
    ///
    /// # Errors
    /// The reason why the update has failed.
    pub fn accept(self, mut stream: &[u8]) -> Result<(), String> {
        let answer = at_once(read_answer(&mut stream)).map_err(|error| error.to_string())?;
        self.signed.check(&self.update, &answer).map_err(|error| error.to_string())
    }
}

impl Default for UpdateExchange {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("bytes in memory are always there"),
    }
}

/// Time of the update, in seconds since 1970. The other server signs at the same time.
const NOW: u64 = 1_800_000_000;
