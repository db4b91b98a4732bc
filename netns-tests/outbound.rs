//! The servers' own connections: the source address that the server chooses decides the uplink.

use anyhow::{Result, ensure};
use natbox::lab::http::HttpServer;
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Site, curl, listen};

#[test]
fn the_server_goes_out_over_each_uplink_of_a_shared_network() -> Result<()> {
    the_internet_sees_the_published_address_of_each_uplink(Private::Shared)
}

#[test]
fn the_server_goes_out_over_each_uplink_of_separate_networks() -> Result<()> {
    the_internet_sees_the_published_address_of_each_uplink(Private::Separate)
}

fn the_internet_sees_the_published_address_of_each_uplink(private: Private) -> Result<()> {
    let site = Site::new(private, 1)?;
    let _boxes = [site.start(0, &site.web_config(0))?, site.start(1, &site.web_config(1))?];
    let _internet = HttpServer::start(vec![listen(site.client(), CLIENTS[0], 8080)?], None)?;
    for uplink in [0, 1] {
        let url = format!("http://{}:8080", CLIENTS[0]);
        let seen = curl(site.server(), site.server_address(uplink), &[&url])?;
        let wanted = site.uplink(uplink).published.to_string();
        ensure!(seen.trim() == wanted, "uplink {}: seen as {seen}, wanted {wanted}", uplink + 1);
        let bulk = format!("{url}/bytes/1000000");
        let arguments = ["--output", "/dev/null", "--write-out", "%{size_download}", &bulk];
        let size = curl(site.server(), site.server_address(uplink), &arguments)?;
        ensure!(size == "1000000", "uplink {}: {size} bytes", uplink + 1);
    }
    Ok(())
}
