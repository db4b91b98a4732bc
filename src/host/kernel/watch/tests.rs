//! Which messages of the kernel lead to which report.

use super::*;
use crate::config;

/// A subscription whose messages come from the test.
async fn watch(messages: Vec<Message>) -> LinkWatch {
    let config = config::parse(
        "a test",
        "name: test\n\
         inside: { interface: lan0, prefixes: [10.0.0.0/24] }\n\
         tun: { name: nb0 }\n\
         uplinks: [{ name: isp1, interface: wan0, addresses: [203.0.113.10] }]\n",
    );
    let config = config.unwrap().config;
    let mut watch = LinkWatch::start(&config).await.unwrap();
    watch.messages =
        Box::new(futures_util::stream::iter(messages).chain(futures_util::stream::pending()));
    watch
}

async fn report(messages: Vec<Message>) -> Option<HostChange> {
    let mut watch = watch(messages).await;
    tokio::time::timeout(4 * SETTLE_DELAY, watch.next()).await.ok()
}

fn route(table: u32, protocol: u8, to: Option<&str>) -> Message {
    let to = to.map(|to| to.parse().unwrap());
    Message::Route(ChangedRoute { table, protocol, to, device: None })
}

#[tokio::test]
async fn lost_messages_lead_to_a_look_at_everything() {
    assert_eq!(report(vec![Message::Overrun]).await, Some(HostChange::Addresses));
    let among_others = vec![Message::Rule, Message::Overrun, Message::Other];
    assert_eq!(report(among_others).await, Some(HostChange::Addresses));
}

#[tokio::test]
async fn rules_and_routes_of_natbox_lead_to_a_look_at_the_settings() {
    for message in [
        Message::Rule,
        route(254, RTPROT_NATBOX, Some("10.0.0.0")),
        route(7100, 4, None),
        route(254, 4, Some("203.0.113.10")),
    ] {
        assert_eq!(report(vec![message]).await, Some(HostChange::Settings));
    }
    for message in [route(52, 4, Some("192.0.2.0")), route(52, 4, None), Message::Other] {
        assert_eq!(report(vec![message]).await, None);
    }
}

#[tokio::test]
async fn routes_of_the_main_table_are_reported_once_in_a_second() {
    for message in [route(254, 4, Some("192.0.2.0")), route(254, 4, None)] {
        assert_eq!(report(vec![message]).await, Some(HostChange::Addresses));
    }
    let routes = |_| route(254, 4, Some("192.0.2.0"));
    let mut watch = watch((0..9).map(routes).collect()).await;
    let start = Instant::now();
    assert_eq!(watch.next().await, HostChange::Addresses);
    assert!(start.elapsed() < LOOK_INTERVAL / 2);
    watch.messages = Box::new(
        futures_util::stream::iter((0..9).map(routes).collect::<Vec<_>>())
            .chain(futures_util::stream::pending()),
    );
    assert_eq!(watch.next().await, HostChange::Addresses);
    assert!((LOOK_INTERVAL..2 * LOOK_INTERVAL).contains(&start.elapsed()));
}

/// Regression: a program that flushed the addresses of the TUN was taken for the kernel, so its
/// removals were neither counted nor disputed.
#[tokio::test]
async fn an_address_of_the_tun_is_a_setting_of_natbox() {
    let mut watch = watch(Vec::new()).await;
    let tun = 7;
    watch.watched.iter_mut().find(|watched| watched.name == "nb0").unwrap().state =
        Some(LinkState {
            index: tun,
            carrier: true,
            mtu: 65535,
            settings: LinkSettings {
                queue_length: 1000,
                group: 7100,
                up: true,
                arp: false,
                controller: None,
                lower: None,
            },
            hardware: None,
        });
    let address = |index| {
        let address = "169.254.71.1".parse().unwrap();
        let network = ipnet::Ipv4Net::from(address);
        Message::Address(Address { index, address, network, primary: false })
    };
    for (index, reported) in [(tun + 1, HostChange::Addresses), (tun, HostChange::Settings)] {
        watch.messages = Box::new(
            futures_util::stream::iter([address(index)]).chain(futures_util::stream::pending()),
        );
        let next = tokio::time::timeout(4 * SETTLE_DELAY, watch.next()).await;
        assert_eq!(next.ok(), Some(reported));
    }
}

/// Regression: an address of an interface that the configuration does not name was ignored, so a
/// service of the host at an address that came after the start got no packets.
#[tokio::test]
async fn addresses_of_other_interfaces_are_reported_once_in_a_second() {
    let address = |_| {
        let address = "10.0.0.77".parse().unwrap();
        let network = ipnet::Ipv4Net::from(address);
        Message::Address(Address { index: 999, address, network, primary: true })
    };
    let mut watch = watch((0..9).map(address).collect()).await;
    let start = Instant::now();
    assert_eq!(watch.next().await, HostChange::Addresses);
    assert!(start.elapsed() < LOOK_INTERVAL / 2);
    watch.messages = Box::new(
        futures_util::stream::iter((0..9).map(address).collect::<Vec<_>>())
            .chain(futures_util::stream::pending()),
    );
    assert_eq!(watch.next().await, HostChange::Addresses);
    assert!((LOOK_INTERVAL..2 * LOOK_INTERVAL).contains(&start.elapsed()));
}

/// Regression: an interface without carrier that was set down or up kept its old state in `status`.
#[tokio::test]
async fn a_setting_of_a_watched_interface_is_reported_whatever_its_carrier_is() {
    let link = |up, arp| Link {
        index: 5,
        name: "lan0".into(),
        mtu: 1500,
        queue_length: 1000,
        group: 0,
        up,
        carrier: false,
        arp,
        hardware: None,
        controller: None,
        lower: None,
    };
    for changed in [link(true, true), link(false, false)] {
        let mut watch = watch(Vec::new()).await;
        watch.compare(&link(false, true));
        watch.pending.clear();
        watch.compare(&changed);
        assert_eq!(watch.next().await, HostChange::Addresses);
        watch.compare(&changed);
        let next = tokio::time::timeout(4 * SETTLE_DELAY, watch.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}
