//! A web session that is bound to the client's IP address survives a change of the uplink, because
//! the server sees the same client address on every uplink.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use natbox::lab::http::{HttpAnswer, HttpHandler, HttpRequest, HttpServer};
use natbox::lab::topology::{CLIENTS, Private, ThreeLeggedPlan};

use crate::lab::{Site, curl, listen};

#[test]
fn a_session_bound_to_the_client_address_survives_alternating_uplinks() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let _boxes = site.start_web_boxes()?;
    assert_a_session_survives(&site, &[site.server_address(0), site.server_address(1)])
}

#[test]
fn session_bound_to_the_client_address_survives_behind_a_three_legged_box() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let server = site.server_address(0);
    let _natbox = site.start(0, &site.three_legged_config().forward("tcp", 80, server, 80))?;
    assert_a_session_survives(&site, &[server])
}

/// Asserts that a session survives on a server with these addresses.
fn assert_a_session_survives(site: &Site, addresses: &[Ipv4Addr]) -> Result<()> {
    let listeners = addresses
        .iter()
        .map(|address| listen(site.server(), *address, 80))
        .collect::<Result<_>>()?;
    let _server = HttpServer::start(listeners, Some(login_handler()))?;

    let jar = site.lab.directory().join("cookies").display().to_string();
    // One name for both uplinks, as DNS would give it. The address decides the uplink.
    let visit = |client: Ipv4Addr, uplink: usize, path: &str| {
        let resolve = format!("site.example:80:{}", site.uplink(uplink).published);
        let url = format!("http://site.example{path}");
        curl(site.client(), client, &["--resolve", &resolve, "-c", &jar, "-b", &jar, &url])
    };
    visit(CLIENTS[0], 0, "/login")?;
    for round in 0..10 {
        let answer = visit(CLIENTS[0], round % 2, "/private")?;
        ensure!(answer == format!("welcome back, {}", CLIENTS[0]), "round {round}: {answer}");
    }
    // The binding is effective: on each uplink the server rejects the same cookie from another
    // address.
    for uplink in [0, 1] {
        let refused = visit(CLIENTS[1], uplink, "/private");
        ensure!(
            refused.is_err_and(|error| error.to_string().contains("403")),
            "a stolen cookie was accepted"
        );
    }
    Ok(())
}

/// `/login` returns a cookie that is bound to the client's address. `/private` requires both.
fn login_handler() -> HttpHandler {
    let sessions: Mutex<HashMap<String, Ipv4Addr>> = Mutex::default();
    Arc::new(move |request: &HttpRequest| {
        let mut sessions = sessions.lock().ok()?;
        match request.path.as_str() {
            "/login" => {
                let id = format!("{:04}", sessions.len());
                let cookie = ("Set-Cookie".to_owned(), format!("id={id}"));
                sessions.insert(id, request.peer);
                Some(HttpAnswer { headers: vec![cookie], ..HttpAnswer::text(200, "hello") })
            }
            "/private" => {
                let id = request.header("cookie").and_then(|cookie| cookie.strip_prefix("id="));
                match id.and_then(|id| sessions.get(id)) {
                    Some(owner) if *owner == request.peer => {
                        Some(HttpAnswer::text(200, format!("welcome back, {owner}")))
                    }
                    Some(_) | None => Some(HttpAnswer::text(403, "not your session")),
                }
            }
            _ => None,
        }
    })
}
