//! Rules of other programs that drop natbox's packets: `natbox status` shows them while they are
//! there.

use anyhow::{Result, bail, ensure};
use natbox::api::{Event, EventKind, Request, client};
use natbox::cli::doctor::Severity;
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::Private;
use natbox::lab::{Namespace, command_line};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{NATBOX, Site, output, wait_for};

/// What Docker does when it starts.
const DOCKER: &str = "nft 'add table ip filter; \
     add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'";

fn shell(namespace: &Namespace, script: &str) -> Result<String> {
    let mut command = namespace.command("sh");
    command.args(["-ec", script]);
    output(command)
}

/// Returns the events about the host so far.
fn warnings(natbox: &NatBox) -> Result<Vec<EventKind>> {
    let mut kinds = Vec::new();
    let request = Request::Events { follow: false };
    let _ = client::follow(natbox.socket(), &request, |event: Event| {
        use EventKind::{HostWarning, HostWarningEnded};
        if matches!(event.kind, HostWarning { .. } | HostWarningEnded { .. }) {
            kinds.push(event.kind);
        }
        std::ops::ControlFlow::<()>::Continue(())
    })?;
    Ok(kinds)
}

/// Waits until the status shows the chain of [`DOCKER`]. Returns the commands that fix it.
fn wait_for_warning(natbox: &NatBox) -> Result<Vec<String>> {
    wait_for("the warning", || {
        let warnings = natbox.status()?.warnings;
        let chain = warnings.into_iter().find(|warning| {
            warning.severity == Severity::Error
                && warning.found.contains("`ip filter FORWARD` drops")
        });
        Ok(chain.map(|warning| warning.fix))
    })
}

fn wait_for_none(natbox: &NatBox) -> Result<()> {
    wait_for("the end of the warning", || Ok(natbox.status()?.warnings.is_empty().then_some(())))
}

#[test]
fn status_shows_rules_that_drop_packets_until_they_are_gone() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let host = &site.uplink(0).natbox;
    let mut natbox = site.start(0, &site.web_config(0))?;
    wait_for_none(&natbox)?;
    shell(host, DOCKER)?;
    let fix = wait_for_warning(&natbox)?;
    let mut status = host.command(NATBOX);
    status.args(["status", "--socket"]).arg(natbox.socket());
    let line = command_line(&status);
    let text = output(status)?;
    ensure!(text.contains("error     the chain `ip filter FORWARD` drops"), "{line}\n{text}");
    for command in &fix {
        shell(host, command)?;
    }
    wait_for_none(&natbox)?;
    let events = warnings(&natbox)?;
    let [EventKind::HostWarning { found, .. }, EventKind::HostWarningEnded { found: ended }] =
        events.as_slice()
    else {
        bail!("not one event each: {events:?}")
    };
    ensure!(found == ended && natbox.process().log().contains(found), "{events:?}");
    Ok(())
}

/// The rules are there before natbox starts, and the process that lists them is killed.
#[test]
fn killed_lister_of_rules_is_replaced() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let host = &site.uplink(0).natbox;
    shell(host, DOCKER)?;
    let natbox = site.start(0, &site.web_config(0))?;
    wait_for_warning(&natbox)?;
    let pid = natbox.status()?.pid;
    let lister = wait_for("the lister", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().next().and_then(|pid| pid.parse().ok()))
    })?;
    // It stands by from now on.
    wait_for("the process that stands by", || {
        let path = format!("/proc/{lister}/task");
        let threads = std::fs::read_dir(path)?.flatten();
        let mut children = threads
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        Ok(children.any(|children| !children.trim().is_empty()).then_some(()))
    })?;
    kill_process(Pid::from_raw(lister).expect("a number"), Signal::KILL)?;
    shell(host, "nft delete table ip filter")?;
    wait_for_none(&natbox)?;
    shell(host, DOCKER)?;
    wait_for_warning(&natbox).map(drop)
}

/// The kernel reports no change of these rules, so natbox sees them at its next look: at the start,
/// or within a minute.
#[test]
fn status_says_that_it_does_not_read_rules_of_iptables_legacy() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let host = &site.uplink(0).natbox;
    shell(host, "iptables-legacy -A FORWARD -s 192.0.2.99 -j DROP")?;
    let natbox = site.start(0, &site.web_config(0))?;
    let warning = wait_for("the warning", || {
        let mut warnings = natbox.status()?.warnings.into_iter();
        Ok(warnings.find(|warning| warning.found.starts_with("iptables-legacy: ")))
    })?;
    ensure!(warning.advice.contains("iptables-legacy-save"));
    let mut status = host.command(NATBOX);
    status.args(["status", "--socket"]).arg(natbox.socket());
    let text = output(status)?;
    ensure!(text.contains("iptables-legacy: natbox does not read its rules"), "{text}");
    Ok(())
}
