//! Services of the box's host itself, packets of the host from inside addresses, and what the host
//! forwards for its other networks.
//!
//! | file      | behaviour                                                                          |
//! |-----------|------------------------------------------------------------------------------------|
//! | `containers` | containers, VPN clients and routed networks work beside natbox                  |
//! | `publish` | forwards to the host's own inside address work over every uplink at once           |
//! | `leaks`   | no packet with an inside source leaves by an uplink, whatever the host sends       |
//! | `refused` | forwards that cannot work on this host are named at the start and by the doctor    |

mod containers;
mod leaks;
mod publish;
mod refused;

use std::net::Ipv4Addr;
use std::sync::Arc;

use natbox::lab::Namespace;
use natbox::lab::capture::Capture;
use parking_lot::Mutex;

/// Address of the box on the private network.
const INSIDE: Ipv4Addr = crate::single_box::BOX_INSIDE;
/// Port of a TCP service of the host.
const SSH: u16 = 22;

/// Packets with a private source that arrive in the namespace of a provider.
struct PrivateSources {
    seen: Arc<Mutex<Vec<String>>>,
    _capture: Capture,
}

impl PrivateSources {
    fn watch(provider: &Namespace) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        let capture = Capture::start(provider, move |frame| {
            let Some(packet) = frame.ipv4() else { return };
            let source = packet.source();
            if source.octets()[0] == 10 || source.is_link_local() {
                let (to, protocol) = (packet.destination(), packet.protocol());
                theirs.lock().push(format!("{source} > {to} protocol {protocol}"));
            }
        })
        .unwrap();
        Self { seen, _capture: capture }
    }

    /// Asserts that no such packet has arrived before the capture stops.
    #[track_caller]
    fn assert_none(self) {
        let Self { seen, _capture } = self;
        drop(_capture);
        let seen = seen.lock();
        assert!(seen.is_empty(), "{} packets from private sources: {:?}", seen.len(), seen.first());
    }
}
