//! The host's own services, at addresses that the host owns on each of its uplinks, while another
//! program keeps one setting of natbox away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use super::OWN_PORT;
use crate::lab::{Site, listen};

/// Time within which natbox answers a removal, unless it waits.
const ANSWER: Duration = Duration::from_millis(400);
/// Time for a connection, less than the first pause of natbox. A lost SYN is repeated after a
/// second.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Removals after which natbox waits.
const REMOVALS: usize = 8;

#[test]
fn the_host_answers_on_each_address_while_a_program_keeps_a_rule_away() -> Result<()> {
    let list = |host: &Namespace| {
        let rules = host.ip_output(&["-4", "rule"])?;
        let rules = rules.lines().filter_map(|line| line.split_once(":\t"));
        let rules = rules.filter(|(priority, _)| !priority.starts_with("3276"));
        Ok(rules.map(|(priority, rule)| format!("priority {priority} {rule}")).collect())
    };
    assert_answers_without("rule", list)
}

#[test]
fn the_host_answers_on_each_address_while_a_program_keeps_a_route_away() -> Result<()> {
    let list = |host: &Namespace| {
        let words = ["-4", "route", "show", "table", "all", "proto", "110"];
        Ok(host.ip_output(&words)?.lines().map(|line| format!("{line} proto 110")).collect())
    };
    assert_answers_without("route", list)
}

/// Removes each setting again and again until natbox pauses, and connects to each address of the
/// host. Then sets the setting again in natbox's place.
fn assert_answers_without(
    object: &str,
    list: impl Fn(&Namespace) -> Result<Vec<String>>,
) -> Result<()> {
    let plan = ThreeLeggedPlan { uplinks: 2, servers: 1, mbit: None, one_network: false };
    let site = Site::three_legged(plan)?;
    let mut own = Vec::new();
    for uplink in &site.topology.uplinks {
        uplink.natbox.address(&uplink.interface, uplink.published, 32)?;
        own.push(listen(&uplink.natbox, uplink.published, OWN_PORT)?);
    }
    let _own = HttpServer::start(own, None)?;
    let config = site.three_legged_config().forward("tcp", 80, site.server_address(0), 80);
    let _natbox = site.start(0, &config)?;
    let watches = [site.watch_ports(0, &[OWN_PORT])?, site.watch_ports(1, &[OWN_PORT])?];
    let host = &site.uplink(0).natbox;
    // The first removals find the settings as after the start.
    std::thread::sleep(ANSWER);
    let settings = list(host)?;
    ensure!(settings.len() > 20, "{settings:#?}");
    for setting in &settings {
        let words: Vec<&str> = setting.split_whitespace().collect();
        let change = |verb: &str| host.ip(&[&["-4", object, verb], &words[..]].concat());
        let is_there = || Ok::<_, anyhow::Error>(list(host)?.contains(setting));
        for _ in 0..REMOVALS {
            // natbox may move at the same moment.
            let _ = change("del");
            let deadline = Instant::now() + ANSWER;
            while !is_there()? && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            if !is_there()? {
                break;
            }
        }
        if is_there()? {
            change("del").with_context(|| format!("{object} {setting} stays"))?;
        }
        for uplink in &site.topology.uplinks {
            let connect =
                || connect(Some(CLIENTS[1]), uplink.endpoint(OWN_PORT), ATTEMPT)?.get("/");
            let answer = site.client().enter(connect)?;
            answer.with_context(|| format!("by {} without {object} {setting}", uplink.name))?;
        }
        let _ = change("add");
    }
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies as usize >= settings.len(), "{counts:?}");
    }
    Ok(())
}
