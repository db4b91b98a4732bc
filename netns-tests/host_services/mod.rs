//! Services of the box's host itself, packets of the host from inside addresses, and what the host
//! forwards for its other networks.
//!
//! | file | behaviour |
//! |---|---|
//! | `containers` | containers, VPN clients and routed networks work beside natbox |
//! | `private_filter` | no private address passes an uplink, whatever the host sends or gets |
//! | `publish` | forwards to the host's own inside address work over every uplink at once |
//! | `leaks` | no packet with an inside source leaves by an uplink, whatever the host sends |
//! | `refused` | forwards that cannot work on this host are named at the start and by the doctor |

mod containers;
mod later_addresses;
mod leaks;
mod private_filter;
mod publish;
mod refused;

use std::net::Ipv4Addr;
use std::sync::Arc;

use natbox::lab::Namespace;
use natbox::lab::capture::Capture;
use parking_lot::Mutex;

use crate::single_box::eventually;

/// Address of the box on the private network.
const INSIDE: Ipv4Addr = crate::single_box::BOX_INSIDE;
/// Port of a TCP service of the host.
const SSH: u16 = 22;

/// Packets from certain sources that arrive in the namespace of a provider.
struct PrivateSources {
    seen: Arc<Mutex<Vec<String>>>,
    _capture: Capture,
}

impl PrivateSources {
    /// Watches for private sources.
    fn watch(provider: &Namespace) -> Self {
        Self::watch_for(provider, |source| {
            let is_of_carrier = source.octets()[0] == 100 && source.octets()[1] & 0xc0 == 64;
            source.is_private() || source.is_link_local() || source.is_loopback() || is_of_carrier
        })
    }

    fn watch_for(provider: &Namespace, is_wanted: fn(Ipv4Addr) -> bool) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        let capture = Capture::start(provider, move |frame| {
            let Some(packet) = frame.ipv4() else { return };
            let source = packet.source();
            if is_wanted(source) {
                let (to, protocol) = (packet.destination(), packet.protocol());
                theirs.lock().push(format!("{source} > {to} protocol {protocol}"));
            }
        })
        .unwrap();
        Self { seen, _capture: capture }
    }

    /// Waits until such a packet has arrived.
    #[track_caller]
    fn wait(&self) {
        eventually("a packet arrives", || (!self.seen.lock().is_empty()).then_some(()));
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
