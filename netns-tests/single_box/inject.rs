//! Frames of any content on the outside segment.

use std::net::Ipv4Addr;

use natbox::lab::hardware_address;
use tun_tap::{Iface, Mode};

use super::{PROVIDER, SingleBox};

/// A TAP device that is bridged with the provider's end of the uplink. A frame written here arrives
/// at the box's `wan0` without passing an IP stack.
pub(crate) struct Injector {
    tap: Iface,
    header: [u8; 14],
}

impl Injector {
    /// Replaces the provider's interface by a bridge.
    pub(crate) fn new(testbed: &SingleBox) -> Injector {
        let net = &testbed.net;
        let tap = net.enter(|| Iface::without_packet_info("tap0", Mode::Tap)).unwrap().unwrap();
        net.ip(&["link", "set", "tap0", "up"]).unwrap();
        net.ip(&["addr", "del", &format!("{PROVIDER}/24"), "dev", "eth0"]).unwrap();
        net.bridge("br0", &["eth0", "tap0"]).unwrap();
        net.address("br0", PROVIDER, 24).unwrap();
        let [box_end, provider_end] = [1, 2].map(|end| hardware_address(0, end));
        let mut header = [0; 14];
        header[..6].copy_from_slice(&box_end);
        header[6..12].copy_from_slice(&provider_end);
        header[6..12][5] = 0x77;
        header[12..].copy_from_slice(&[8, 0]);
        Injector { tap, header }
    }

    /// Sends bytes to the box as the payload of an IPv4 frame.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.tap.send(&[&self.header[..], packet].concat()).unwrap();
    }

    /// Sends bytes to the box as the payload of an IPv4 frame with the tag of a VLAN.
    pub(crate) fn send_tagged(&self, vlan: u16, packet: &[u8]) {
        let (addresses, ethertype) = self.header.split_at(12);
        let tag = [&[0x81, 0x00][..], &vlan.to_be_bytes()].concat();
        self.tap.send(&[addresses, &tag, ethertype, packet].concat()).unwrap();
    }

    /// A client address that no kernel has, so that no kernel answers the box.
    pub(crate) const UNUSED_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
}
