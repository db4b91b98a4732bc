//! Several servers behind both boxes, each with an address for each uplink.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Result, ensure};
use natbox::lab::http::{HttpAnswer, HttpHandler, HttpRequest, HttpServer};
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Site, curl, listen};

#[test]
fn several_servers_behind_both_boxes_on_one_private_network() -> Result<()> {
    each_server_answers_on_both_uplinks(Private::Shared)
}

#[test]
fn several_servers_behind_both_boxes_on_separate_private_networks() -> Result<()> {
    each_server_answers_on_both_uplinks(Private::Separate)
}

/// Three servers on ports 80, 81 and 82 of each uplink's one published address.
fn each_server_answers_on_both_uplinks(private: Private) -> Result<()> {
    let site = Site::new(private, 3)?;
    let mut servers = Vec::new();
    for (number, server) in site.topology.servers.iter().enumerate() {
        let listeners: Vec<TcpListener> = server
            .addresses
            .iter()
            .map(|address| listen(&server.namespace, *address, 80))
            .collect::<Result<_>>()?;
        let handler: HttpHandler = Arc::new(move |request: &HttpRequest| {
            Some(HttpAnswer::text(200, format!("server {number} to {}", request.peer)))
        });
        servers.push(HttpServer::start(listeners, Some(handler))?);
    }
    let mut boxes = Vec::new();
    for uplink in [0, 1] {
        let config = site
            .topology
            .servers
            .iter()
            .zip(80..)
            .fold(site.config(uplink), |config, (server, port)| {
                config.forward("tcp", port, server.addresses[uplink], 80)
            });
        boxes.push(site.start(uplink, &config)?);
    }

    for uplink in [0, 1] {
        for (number, port) in (0..servers.len()).zip(80..) {
            for client in &CLIENTS[..2] {
                let answer = curl(
                    site.client(),
                    *client,
                    &[&format!("http://{}/", site.uplink(uplink).endpoint(port))],
                )?;
                ensure!(
                    answer == format!("server {number} to {client}"),
                    "uplink {uplink} port {port}: {answer}"
                );
            }
        }
    }
    Ok(())
}
