//! Routes to a server, and servers with scripted answers.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use hickory_proto::op::Metadata;
use hickory_proto::rr::TSigResponseContext;

use super::super::super::testing::{name, states, zone};
use super::*;
use crate::uplinks::Answers;
use crate::values::dns::Replace;

fn update(server: SocketAddr) -> Update {
    let key = TsigKey { name: name("k"), algorithm: Algorithm::HmacSha256, secret: vec![7; 32] };
    Update {
        server,
        over_uplinks: true,
        zone: zone().origin,
        replace: Replace::All,
        announced: None,
        key,
    }
}

/// Makes three uplinks with source addresses of this host, so that each is a route to a server on
/// this host.
fn sourced() -> UplinkStates {
    let mut states = states();
    for (uplink, last) in states.uplinks.iter_mut().zip(1..) {
        uplink.source = Some(Ipv4Addr::new(127, 72, 0, last));
    }
    states
}

fn names(update: &Update, states: &UplinkStates) -> Vec<String> {
    routes(update, states).into_iter().map(|route| route.name).collect()
}

#[test]
fn uplinks_that_are_up_come_first_and_the_hosts_own_route_last() {
    let mut update = update(([192, 0, 2, 53], 53).into());
    let mut states = sourced();
    states.uplinks[0].up = false;
    assert_eq!(
        names(&update, &states),
        ["over isp2", "over isp3", "over isp1", "by the host's own route"]
    );
    states.uplinks[1].address = None;
    states.uplinks[2].source = None;
    assert_eq!(names(&update, &states), ["over isp1", "by the host's own route"]);
    // A server on the private network, and a server that no IPv4 uplink leads to.
    update.over_uplinks = false;
    assert_eq!(names(&update, &states), ["by the host's own route"]);
    update.over_uplinks = true;
    update.server = "[2001:db8::53]:53".parse().unwrap();
    assert_eq!(names(&update, &states), ["by the host's own route"]);
}

#[test]
fn no_uplink_above_the_tier_in_use_is_a_route_by_itself() {
    let update = update(([192, 0, 2, 53], 53).into());
    let mut states = sourced();
    for (uplink, tier) in states.uplinks.iter_mut().zip([2, 1, 1]) {
        uplink.tier = tier;
    }
    states.uplinks[1].up = false;
    assert_eq!(names(&update, &states), ["over isp3", "over isp2", "by the host's own route"]);
    states.uplinks[2].up = false;
    assert_eq!(
        names(&update, &states),
        ["over isp1", "over isp2", "over isp3", "by the host's own route"]
    );
    states.uplinks[0].up = false;
    assert_eq!(
        names(&update, &states),
        ["over isp2", "over isp3", "over isp1", "by the host's own route"],
        "no check may be right"
    );
    states.uplinks[0].answers = Answers::Good;
    assert_eq!(
        names(&update, &states),
        ["over isp1", "over isp2", "over isp3", "by the host's own route"],
        "the last resort first"
    );
}

/// What a server of the tests does with a connection.
type Reply = fn(&[u8], Ipv4Addr) -> Option<Vec<u8>>;

/// Answers a number of connections. Returns the address of the server and, in the end, the sources
/// of the connections.
fn serve(connections: usize, reply: Reply) -> (SocketAddr, JoinHandle<Vec<Ipv4Addr>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let accept = |_| {
            let (mut stream, client) = listener.accept().unwrap();
            let std::net::IpAddr::V4(source) = client.ip() else { panic!("{client}") };
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            match reply(&message, source) {
                Some(answer) => {
                    stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                    stream.write_all(&answer).unwrap();
                }
                // Silence, until the other side gives up.
                None => drop(stream.read(&mut [0])),
            }
            source
        };
        (0..connections).map(accept).collect()
    };
    (address, thread::spawn(serve))
}

fn key() -> TSigner {
    signer(&update(([192, 0, 2, 53], 53).into())).unwrap()
}

/// Makes the answer of a server that has the key, and whose clock shows `now`.
fn signed_at(message: &[u8], code: ResponseCode, now: u64, error: Option<TsigError>) -> Vec<u8> {
    let mac = Message::from_vec(message).unwrap().signature().unwrap().data.mac.clone();
    answered(message, code, |id| TSigResponseContext::new(id, now, key(), mac, error))
}

fn signed(message: &[u8], code: ResponseCode) -> Vec<u8> {
    signed_at(message, code, now(), None)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn answered(
    message: &[u8],
    code: ResponseCode,
    context: impl FnOnce(u16) -> TSigResponseContext,
) -> Vec<u8> {
    let mut answer = bare(message, code);
    let signature = context(answer.metadata.id).sign(&answer.to_vec().unwrap()).unwrap();
    answer.set_signature(signature);
    answer.to_vec().unwrap()
}

/// Makes an answer without a signature.
fn bare(message: &[u8], code: ResponseCode) -> Message {
    let request = Message::from_vec(message).unwrap();
    let mut answer = Message::query();
    answer.metadata = Metadata::response_from_request(&request.metadata);
    answer.metadata.response_code = code;
    answer
}

fn sent(server: SocketAddr) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(send(&update(server), &[], &sourced()))
}

#[test]
fn an_uplink_that_does_not_lead_to_the_server_is_passed_over() {
    // As if packets were lost behind the first uplink, and the server refused the source address of
    // the second.
    let (server, sources) = serve(3, |message, source| match source.octets()[3] {
        1 => None,
        2 => Some(signed(message, ResponseCode::Refused)),
        _ => Some(signed(message, ResponseCode::NoError)),
    });
    assert_eq!(sent(server), Ok("over isp3".to_owned()));
    assert_eq!(sources.join().unwrap(), [1, 2, 3].map(|last| Ipv4Addr::new(127, 72, 0, last)));
}

#[test]
fn each_error_names_its_cause() {
    let cases: [(Reply, &str); 6] = [
        (
            |message, _| Some(signed(message, ResponseCode::NotAuth)),
            "the server does not answer for the zone example.org.;",
        ),
        (
            |message, _| {
                let key = |id| TSigResponseContext::unknown_key(id, now(), name("k"));
                Some(answered(message, ResponseCode::NotAuth, key))
            },
            "the server does not know the key k.",
        ),
        (
            |message, _| {
                let key = |id| TSigResponseContext::bad_signature(id, now(), key());
                Some(answered(message, ResponseCode::NotAuth, key))
            },
            "the server has another secret for the key k.;",
        ),
        (
            |message, _| {
                let late = now() + 2 * u64::from(FUDGE);
                Some(signed_at(message, ResponseCode::NotAuth, late, Some(TsigError::BadTime)))
            },
            "differ by more than 300 s",
        ),
        (
            |message, _| Some(bare(message, ResponseCode::NoError).to_vec().unwrap()),
            "the answer (No Error) is not signed with the key k.;",
        ),
        (
            |message, _| Some(signed(message, ResponseCode::ServFail)),
            "the server refused the update: Server Failure",
        ),
    ];
    for (reply, wanted) in cases {
        let (server, sources) = serve(1, reply);
        let error = sent(server).unwrap_err();
        assert!(
            error.starts_with("over isp1: ") && error.contains(wanted),
            "{error:?} without {wanted:?}"
        );
        assert!(!error.contains("http"), "{error}");
        sources.join().unwrap();
    }
}
