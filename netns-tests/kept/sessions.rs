//! Sessions outlive the process (`state.keep`): a kill, a restart, a stop with a later start.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{Connection, HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use super::{Owner, configuration, kill, site, stop};
use crate::lab::{
    BoxConfig, Echo, NATBOX, Site, TIMEOUT, datagrams, exchange, listen, output, wait_for,
};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
const WEB: u16 = 80;

/// A box with two uplinks, a published server, and connections in both directions.
struct Testbed {
    site: Site,
    _outside: HttpServer,
    _published: HttpServer,
    config: BoxConfig,
}

/// A connection and the address of its client as the server sees it.
struct Talk {
    connection: Connection,
    seen: String,
}

impl Talk {
    fn new(mut connection: Connection) -> Result<Talk> {
        let seen = connection.get("/")?.text().trim().to_owned();
        Ok(Talk { connection, seen })
    }

    fn goes_on(&mut self) -> Result<()> {
        let seen = self.connection.get("/").context("the connection has ended")?;
        ensure!(seen.text().trim() == self.seen, "{} has become {}", self.seen, seen.text());
        Ok(())
    }
}

/// The next test with a namespace of the same inode must find no journal.
impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.down();
    }
}

impl Testbed {
    fn new(owner: Owner) -> Result<Testbed> {
        Testbed::with(ThreeLeggedPlan::TWO_UPLINKS, owner)
    }

    /// A box that uses the first two uplinks of the plan.
    fn with(plan: ThreeLeggedPlan, owner: Owner) -> Result<Testbed> {
        let site = site(plan, owner)?;
        let listener = listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?;
        let outside = HttpServer::start(vec![listener], None)?;
        let listener = listen(site.server(), site.server_address(0), WEB)?;
        let published = HttpServer::start(vec![listener], None)?;
        let config = configuration(&site, 0..2, &[0, 1]);
        Ok(Testbed { site, _outside: outside, _published: published, config })
    }

    fn start(&self) -> Result<NatBox> {
        self.site.start(0, &self.config)
    }

    /// Removes what a stopped box has left, and returns the output.
    fn down(&self) -> Result<String> {
        self.site.down(&self.config)
    }

    /// Opens connections: from inside over both uplinks, and to both published addresses.
    fn talks(&self) -> Result<Vec<Talk>> {
        let mut talks = Vec::new();
        for number in 0..10 {
            let inside = self.site.server().enter(|| connect(None, OUTSIDE, TIMEOUT))??;
            talks.push(Talk::new(inside)?);
            let published = self.site.uplink(number % 2).published;
            let to = SocketAddrV4::new(published, WEB);
            let outside = self.site.client().enter(|| connect(None, to, TIMEOUT))??;
            talks.push(Talk::new(outside)?);
        }
        Ok(talks)
    }
}

fn go_on(talks: &mut [Talk], when: &str) -> Result<()> {
    talks.iter_mut().try_for_each(Talk::goes_on).with_context(|| when.to_owned())
}

fn connections_outlive_kills_and_restarts(owner: Owner) -> Result<()> {
    let testbed = Testbed::new(owner)?;
    let mut natbox = testbed.start()?;
    let mut talks = testbed.talks()?;
    let rules = || testbed.site.uplink(0).natbox.ip_output(&["rule"]);
    let before = rules()?;
    for round in 0..10 {
        kill(natbox)?;
        natbox = testbed.start()?;
        go_on(&mut talks, &format!("kill {round}"))?;
        let after = rules()?;
        ensure!(after == before, "the rules have moved from {before} to {after}");
    }
    for round in 0..10 {
        stop(natbox)?;
        natbox = testbed.start()?;
        go_on(&mut talks, &format!("restart {round}"))?;
    }
    stop(natbox)?;
    // What is sent meanwhile is lost, and nothing answers for the box.
    thread::sleep(Duration::from_secs(3));
    let natbox = testbed.start()?;
    go_on(&mut talks, "a stop and a later start")?;
    let status = natbox.status()?;
    ensure!(status.sessions.now as usize >= talks.len(), "{:?}", status.sessions);
    // New connections work as well.
    go_on(&mut testbed.talks()?, "new ones")
}

#[test]
fn connections_outlive_kills_and_restarts_of_a_box_with_its_own_addresses() -> Result<()> {
    connections_outlive_kills_and_restarts(Owner::Nobody)
}

#[test]
fn connections_outlive_kills_and_restarts_of_a_box_with_the_hosts_addresses() -> Result<()> {
    connections_outlive_kills_and_restarts(Owner::Host)
}

/// Three uplinks, of which the box uses two at first.
const THREE_UPLINKS: ThreeLeggedPlan =
    ThreeLeggedPlan { uplinks: 3, ..ThreeLeggedPlan::TWO_UPLINKS };

impl Testbed {
    /// Starts the box with another configuration and checks that it imports the sessions.
    fn start_changed(&mut self, config: BoxConfig, sentence: &str) -> Result<NatBox> {
        self.config = config;
        let mut natbox = self.start()?;
        let log = natbox.process().log();
        ensure!(log.contains("were imported") && log.contains(sentence), "{sentence}: {log}");
        Ok(natbox)
    }
}

/// A larger table and a smaller one, another uplink, and files of an older release.
#[test]
fn connections_outlive_a_change_of_configuration() -> Result<()> {
    let mut testbed = Testbed::with(THREE_UPLINKS, Owner::Nobody)?;
    let natbox = testbed.start()?;
    let mut talks = testbed.talks()?;
    let original = testbed.config.clone();
    kill(natbox)?;
    let larger = original.clone().sessions(40_000);
    let natbox = testbed.start_changed(larger, "limits.sessions")?;
    go_on(&mut talks, "a larger table")?;
    stop(natbox)?;
    let smaller = original.clone().sessions(500);
    let natbox = testbed.start_changed(smaller, "limits.sessions")?;
    go_on(&mut talks, "a smaller table")?;
    talks.append(&mut testbed.talks()?);
    kill(natbox)?;
    let third = configuration(&testbed.site, 0..3, &[0, 1, 2]).sessions(500);
    let natbox = testbed.start_changed(third, "list of uplinks")?;
    go_on(&mut talks, "a third uplink")?;
    let to = SocketAddrV4::new(testbed.site.uplink(2).published, WEB);
    let outside = testbed.site.client().enter(|| connect(None, to, TIMEOUT))??;
    talks.push(Talk::new(outside)?);
    kill(natbox)?;
    // The header of an older release, whose records have another layout.
    let header = testbed.site.lab.directory().join("state/natbox1/header.json");
    let mut content: serde_json::Value = serde_json::from_str(&fs::read_to_string(&header)?)?;
    content["layout"] = serde_json::json!(FIRST_LAYOUT);
    fs::write(&header, content.to_string())?;
    let natbox = testbed.start_changed(testbed.config.clone(), "another layout of records")?;
    go_on(&mut talks, "an older release")?;
    let status = natbox.status()?;
    ensure!(status.sessions.now as usize >= talks.len(), "{:?}", status.sessions);
    go_on(&mut testbed.talks()?, "new ones")
}

/// The layout of the first release that kept sessions.
const FIRST_LAYOUT: [u64; 25] =
    [1, 1, 64, 40, 64, 0, 8, 16, 20, 24, 0, 1, 2, 3, 4, 8, 28, 32, 36, 38, 0, 16, 48, 52, 56];

/// Connections through the removed uplink end, and the inside hosts among their ends learn of it.
#[test]
fn connections_over_the_other_uplink_outlive_the_removal_of_an_uplink() -> Result<()> {
    let mut testbed = Testbed::new(Owner::Nobody)?;
    let natbox = testbed.start()?;
    let mut talks = testbed.talks()?;
    stop(natbox)?;
    let second = configuration(&testbed.site, 1..2, &[1]);
    let _natbox = testbed.start_changed(second, "list of uplinks")?;
    let removed = testbed.site.uplink(0).published.to_string();
    let (mut over_first, mut over_second, mut inbound) = (Vec::new(), Vec::new(), Vec::new());
    for (number, talk) in talks.drain(..).enumerate() {
        // The outer one of each pair comes in, over each uplink in turn.
        let pair = number / 2;
        match number % 2 {
            1 if pair % 2 == 0 => inbound.push(talk),
            0 if talk.seen == removed => over_first.push(talk),
            _ => over_second.push(talk),
        }
    }
    ensure!(over_second.len() > 5 && !over_first.is_empty(), "{}", over_first.len());
    go_on(&mut over_second, "another uplink is removed")?;
    let mut first = over_first.remove(0);
    let started = Instant::now();
    ensure!(first.goes_on().is_err(), "a connection over a removed uplink goes on");
    ensure!(started.elapsed() < TIMEOUT / 2, "the inside host has not learnt of the end");
    go_on(&mut over_second, "another connection has ended")
}

/// A removed forward ends its connections, and no others.
#[test]
fn connections_of_other_forwards_outlive_the_removal_of_a_forward() -> Result<()> {
    let mut testbed = Testbed::new(Owner::Nobody)?;
    let natbox = testbed.start()?;
    let mut talks = testbed.talks()?;
    kill(natbox)?;
    let second = configuration(&testbed.site, 0..2, &[1]).sessions(30_000);
    let natbox = testbed.start_changed(second, "limits.sessions")?;
    // Every fourth one came in over the first uplink.
    let (mut others, mut over_first) = (Vec::new(), Vec::new());
    for (number, talk) in talks.drain(..).enumerate() {
        if number % 4 == 1 { over_first.push(talk) } else { others.push(talk) }
    }
    go_on(&mut others, "a forward is removed")?;
    wait_for("the end of the sessions of the forward", || {
        Ok((natbox.status()?.sessions.now as usize == others.len()).then_some(()))
    })?;
    // The server closes the others if they are idle for long.
    let first = &mut over_first[0];
    first.connection.stream_ref().set_read_timeout(Some(Duration::from_secs(3)))?;
    ensure!(first.goes_on().is_err(), "a connection of a removed forward goes on");
    go_on(&mut others, "the connections of the forward have ended")
}

/// A mapping keeps its external port, also towards a remote host that is new after the kill.
#[test]
fn udp_mappings_keep_their_external_port() -> Result<()> {
    const PORT: u16 = 7;
    let testbed = Testbed::new(Owner::Nobody)?;
    let echoes = [
        Echo::start(testbed.site.client(), CLIENTS[1], PORT)?,
        Echo::start(testbed.site.client(), CLIENTS[2], PORT)?,
    ];
    let natbox = testbed.start()?;
    let socket = datagrams(testbed.site.server(), testbed.site.server_address(0), 5000)?;
    socket.connect((CLIENTS[1], PORT))?;
    exchange(&socket, 100)?;
    kill(natbox)?;
    let _natbox = testbed.start()?;
    exchange(&socket, 100)?;
    socket.connect((CLIENTS[2], PORT))?;
    // A new mapping could wait for the adoption; this one exists.
    wait_for("the second remote host", || Ok(exchange(&socket, 100).ok()))?;
    let senders = |echo: &Echo| -> Vec<SocketAddr> {
        echo.seen().into_iter().map(|(sender, _)| sender).collect()
    };
    let (first, second) = (senders(&echoes[0]), senders(&echoes[1]));
    ensure!(first.len() == 1 && first == second, "{first:?}, {second:?}");
    Ok(())
}

/// The filter of private addresses stays while no process runs, and the next process replaces it.
#[test]
fn the_filter_stays_while_no_process_runs() -> Result<()> {
    let testbed = Testbed::new(Owner::Nobody)?;
    let host = &testbed.site.uplink(0).natbox;
    let tables = || output(nft(host, &["list", "tables"]));
    let mut natbox = testbed.start()?;
    let mut talks = testbed.talks()?;
    for end in [kill, stop] {
        end(natbox)?;
        // The kernel removes what does not persist within milliseconds.
        thread::sleep(Duration::from_millis(200));
        let rules = output(nft(host, &["list", "table", "netdev", "natbox-nb1"]))?;
        ensure!(rules.contains("closed-") && rules.contains("others-"), "{rules}");
        natbox = testbed.start()?;
        go_on(&mut talks, "another process")?;
        ensure!(tables()?.lines().count() == 1, "{}", tables()?);
        ensure!(natbox.status()?.warnings.is_empty(), "{:?}", natbox.status()?.warnings);
        // It belongs to the process again.
        ensure!(output(nft(host, &["delete", "table", "netdev", "natbox-nb1"])).is_err());
    }
    kill(natbox)?;
    ensure!(testbed.down()?.contains("removed the filter of private addresses"));
    ensure!(tables()?.is_empty(), "{}", tables()?);
    // Without `state.keep` it ends with the process.
    let config = testbed.config.text().replace("keep: true", "keep: false");
    let natbox =
        NatBox::start(Path::new(NATBOX), host, testbed.site.lab.directory(), "natbox1", &config)?;
    wait_for("the filter", || Ok((!tables()?.is_empty()).then_some(())))?;
    kill(natbox)?;
    wait_for("the end of the filter", || Ok(tables()?.is_empty().then_some(())))
}

/// A service of the host itself at an external address that is assigned to the host.
#[test]
fn services_of_the_host_come_back_with_the_next_start_and_with_down() -> Result<()> {
    let testbed = Testbed::new(Owner::Host)?;
    let uplink = testbed.site.uplink(1);
    let listener = listen(&uplink.natbox, uplink.published, 22)?;
    let _ssh = HttpServer::start(vec![listener], None)?;
    let service = SocketAddrV4::new(uplink.published, 22);
    let reach = |timeout| -> Result<()> {
        let connection = testbed.site.client().enter(|| connect(None, service, timeout))??;
        Talk::new(connection).map(drop)
    };
    let mut natbox = testbed.start()?;
    reach(TIMEOUT).context("natbox runs")?;
    natbox.process().terminate()?;
    let log = natbox.process().log();
    ensure!(log.contains("programs of the host itself") && log.contains("natbox down"), "{log}");
    ensure!(log.contains(&uplink.published.to_string()), "{log}");
    ensure!(reach(Duration::from_secs(1)).is_err(), "the host answers past natbox");
    drop(natbox);
    let natbox = testbed.start()?;
    reach(TIMEOUT).context("natbox runs again")?;
    stop(natbox)?;
    testbed.down()?;
    reach(TIMEOUT).context("after `natbox down`")
}

fn nft(host: &Namespace, arguments: &[&str]) -> Command {
    let mut nft = host.command("nft");
    nft.args(arguments);
    nft
}

/// `natbox down` removes what a stopped box has left.
#[test]
fn down_removes_what_a_box_has_left_for_its_next_start() -> Result<()> {
    let testbed = Testbed::new(Owner::Nobody)?;
    let host = &testbed.site.uplink(0).natbox;
    let state = |what: &[&str]| -> Result<String> {
        let arguments: Vec<&str> = what.to_vec();
        host.enter(|| {
            output({
                let mut ip = Command::new("ip");
                ip.args(&arguments);
                ip
            })
        })?
    };
    let before = (state(&["rule"])?, state(&["route", "show", "table", "all"])?);
    let natbox = testbed.start()?;
    stop(natbox)?;
    ensure!(state(&["link"])?.contains("nb1"), "the TUN stays");
    ensure!(state(&["rule"])? != before.0, "the rules stay");
    let text = testbed.down()?;
    ensure!(text.contains("removed the TUN device nb1"), "{text}");
    ensure!(!state(&["link"])?.contains("nb1"), "the TUN is gone");
    let after = (state(&["rule"])?, state(&["route", "show", "table", "all"])?);
    ensure!(before == after, "{before:?} has become {after:?}");
    ensure!(!testbed.site.lab.directory().join("state/natbox1").exists());
    ensure!(testbed.down()?.contains("nothing to remove"));
    Ok(())
}

/// `natbox upgrade --check` asks another program, while the instance runs.
#[test]
fn another_program_says_whether_it_can_take_over() -> Result<()> {
    let testbed = Testbed::new(Owner::Nobody)?;
    let file = testbed.site.lab.directory().join("upgrade.yaml");
    std::fs::write(&file, testbed.config.text())?;
    let ask = |program: &str| -> Result<std::process::Output> {
        let mut ask = Command::new(NATBOX);
        ask.args(["upgrade", "--check", program, "-c"]).arg(&file);
        Ok(ask.output()?)
    };
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let said = ask(NATBOX)?;
    ensure!(said.status.success() && text(&said).contains("no sessions"), "{said:?}");
    let natbox = testbed.start()?;
    let said = ask(NATBOX)?;
    ensure!(said.status.success() && text(&said).contains("all sessions continue"), "{said:?}");
    let smaller = testbed.config.text().replace("sessions: 20000", "sessions: 10000");
    std::fs::write(&file, smaller)?;
    let said = ask(NATBOX)?;
    ensure!(said.status.success() && text(&said).contains("by an import"), "{said:?}");
    std::fs::write(&file, testbed.config.text().replace("keep: true", "keep: false"))?;
    let said = ask(NATBOX)?;
    ensure!(said.status.code() == Some(1) && text(&said).contains("would end"), "{said:?}");
    let said = ask("/bin/true")?;
    ensure!(said.status.code() == Some(1), "{said:?}");
    let said = ask("/missing")?;
    ensure!(said.status.code() == Some(2), "{said:?}");
    stop(natbox)
}
