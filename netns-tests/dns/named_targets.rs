//! Uplinks whose health targets have names, while the host's own default route, which name
//! resolution uses, leads over a failed uplink.

use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use super::programs::{ServedZone, StubResolver, authority};
use crate::failover::{health, set_router};
use crate::lab::{Nginx, Site, wait_for};

/// Several times the detection time of a failed uplink.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn uplink_with_a_named_health_target_stays_up_when_the_hosts_own_uplink_has_failed() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let page = SocketAddrV4::new(CLIENTS[4], 8081);
    let zone = ServedZone {
        name: "example.org.",
        records: &format!("@ 60 IN NS ns\nns 60 IN A {}\nalive 0 IN A {}", CLIENTS[3], page.ip()),
        options: "",
    };
    let _named = authority(&site.lab, site.client(), "named", CLIENTS[3], "", &[zone])?;
    fs::write(site.lab.directory().join("alive"), "")?;
    let _nginx = Nginx::start(&site.lab, site.client(), "nginx", site.lab.directory(), &[page])?;
    let (dies, stays) = (site.uplink(0), site.uplink(1));
    let _stub = StubResolver::new(&dies.natbox, CLIENTS[3])?;
    let keys = health(&format!("http: \"http://alive.example.org:{}/alive\"", page.port()));
    let natbox = site.start(0, &site.three_legged_config().uplink(0, &keys).uplink(1, &keys))?;
    wait_for("a reply over each uplink", || {
        let answered =
            natbox.status()?.uplinks.iter().all(|uplink| uplink.latency_milliseconds.is_some());
        Ok(answered.then_some(()))
    })?;
    set_router(dies, false)?;
    wait_for("the uplink to fail", || Ok((!natbox.status()?.uplinks[0].healthy).then_some(())))?;
    let failed = Instant::now();
    while failed.elapsed() < WATCHED {
        let uplink = &natbox.status()?.uplinks[1];
        ensure!(uplink.healthy, "{} failed, too, after {:?}", stays.name, failed.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    set_router(dies, true)?;
    wait_for("the uplink to recover", || Ok(natbox.status()?.uplinks[0].healthy.then_some(())))
}
