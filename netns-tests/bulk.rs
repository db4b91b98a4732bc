//! iperf3 between clients and servers: bulk data in both directions, TCP and UDP.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::Child;
use natbox::lab::topology::{CLIENTS, Private};
use serde_json::Value;

use crate::lab::{Site, TIMEOUT, require, wait_for};

#[test]
fn uploads_downloads_and_datagrams_flow_over_both_uplinks_at_once() -> Result<()> {
    require("iperf3")?;
    let site = Site::new(Private::Shared, 1)?;
    let (mut boxes, mut servers) = (Vec::new(), Vec::new());
    for (uplink, port) in [(0, 5201), (1, 5202)] {
        let address = site.server_address(uplink);
        boxes.push(
            site.start(uplink, &site.config(uplink).forward("tcp+udp", port, address, port))?,
        );
        servers.push(start_server(&site, uplink, port)?);
    }
    let kinds: [(&str, &[&str]); 4] = [
        ("upload", &["--parallel", "4"]),
        ("download", &["--parallel", "4", "--reverse"]),
        ("datagrams in", &["--udp", "--bitrate", "20M", "--length", "1200"]),
        ("datagrams out", &["--udp", "--bitrate", "20M", "--length", "1200", "--reverse"]),
    ];
    for (kind, arguments) in kinds {
        let mut clients = Vec::new();
        for (uplink, port) in [(0, 5201), (1, 5202)] {
            let target: SocketAddrV4 = site.uplink(uplink).endpoint(port);
            let mut command = site.client().command("iperf3");
            command.args(["--json", "--time", "1", "--bind", &CLIENTS[uplink].to_string()]);
            command
                .args(["--client", &target.ip().to_string(), "--port", &port.to_string()])
                .args(arguments);
            clients.push(
                site.client()
                    .spawn(&format!("iperf3-{}-{uplink}", kind.replace(' ', "-")), command)?,
            );
        }
        for client in &mut clients {
            let status = client.wait(TIMEOUT)?;
            ensure!(
                status.is_some_and(|status| status.success()),
                "{kind}: {status:?}\n{}",
                client.log()
            );
            let report: Value = serde_json::from_str(&client.log())?;
            let sum = if kind.starts_with("datagrams") {
                &report["end"]["sum"]
            } else {
                &report["end"]["sum_received"]
            };
            let bytes =
                sum["bytes"].as_u64().with_context(|| format!("{kind}: no sum in {report}"))?;
            // At least a tenth of the requested amount, because the machine may be busy.
            ensure!(bytes > 250_000, "{kind}: {bytes} bytes");
            if let Some(lost) = sum["lost_percent"].as_f64() {
                ensure!(lost < 10.0, "{kind}: {lost} % lost");
            }
        }
    }
    Ok(())
}

/// Starts iperf3 on the server's address for an uplink, and waits until it listens.
fn start_server(site: &Site, uplink: usize, port: u16) -> Result<Child> {
    let mut command = site.server().command("iperf3");
    command.args(["--server", "--forceflush"]);
    command.args(["--bind", &site.server_address(uplink).to_string(), "--port", &port.to_string()]);
    let mut server = site.server().spawn(&format!("iperf3-server-{uplink}"), command)?;
    wait_for("iperf3 to listen", || {
        if let Some(status) = server.ended()? {
            bail!("iperf3 ended ({status}):\n{}", server.log());
        }
        Ok(server.log().contains("Server listening").then_some(()))
    })?;
    Ok(server)
}
