//! Offloads of interfaces.

use super::*;
use crate::host::doctor::checks::offloads::{MachineRole, evaluate};

#[test]
fn lro_is_an_error_only_where_packets_are_forwarded() {
    let text = "Features for wan0:\nrx-checksumming: on\ntcp-segmentation-offload: off\n\ttx-tcp-segmentation: off\n\
                generic-receive-offload: on\nlarge-receive-offload: on\nrx-vlan-offload: on\n";
    let offloads = Offloads::parse(text);
    assert_eq!((offloads.lro, offloads.gro, offloads.tso), (Some(true), Some(true), Some(false)));
    let interface = "wan0".into();
    let link = LinkSettings { interface, mtu: 1500, rp_filter: 0, offloads, is_network_card: true };
    let of = |link: &LinkSettings, role| evaluate(std::slice::from_ref(link), role);
    let findings = of(&link, MachineRole::Forwards);
    assert_eq!(findings[0].fix, ["ethtool -K wan0 lro off"]);
    assert_eq!(findings[1].severity, Severity::Warning);
    assert_eq!(findings[1].fix, ["ethtool -K wan0 tso on"]);
    assert_eq!(of(&link, MachineRole::Endpoint).len(), 1, "LRO does not harm a server");
    let virtual_link = LinkSettings { is_network_card: false, ..link };
    assert_eq!(of(&virtual_link, MachineRole::Endpoint)[0].severity, Severity::Ok);
    assert_eq!(Offloads::parse("large-receive-offload: off [fixed]").lro, Some(false));
}
