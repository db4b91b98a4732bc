//! What goes wrong.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::api::{Reloaded, Request, client};
use natbox::lab::Namespace;
use rustix::process::{Pid, Signal, kill_process};

use super::{NAME, Testbed, hook_log, set_clock};
use crate::failover::{set_carrier, set_router};
use crate::lab::{TIMEOUT, wait_for};

/// A fault. Each is over when [`Fault::inject`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The router of an uplink dies and comes back.
    RouterDies,
    /// An uplink loses its link and gets it back.
    CarrierLost,
    /// The configuration changes, and changes back.
    Reload,
    Kill,
    Restart,
    /// The process misses what the kernel reports, among it that its rules are gone.
    NetlinkOverrun,
    /// Another program removes the rules, as systemd-networkd does when it starts.
    RulesRemoved,
    /// The TUN device is deleted. The supervisor starts the process again.
    TunRemoved,
    /// The interface of an uplink has another name for a while.
    InterfaceRenamed,
    /// The MTU of an uplink changes, and changes back.
    MtuChanged,
    /// The wall clock jumps forward and back by days.
    ClockJumps,
    /// The disk of the log is full.
    LogFull,
    /// The process that runs the hook is killed.
    HookHelperKilled,
}

impl Fault {
    pub(super) const ALL: [Fault; 13] = [
        Fault::RouterDies,
        Fault::CarrierLost,
        Fault::Reload,
        Fault::Kill,
        Fault::Restart,
        Fault::NetlinkOverrun,
        Fault::RulesRemoved,
        Fault::TunRemoved,
        Fault::InterfaceRenamed,
        Fault::MtuChanged,
        Fault::ClockJumps,
        Fault::LogFull,
        Fault::HookHelperKilled,
    ];

    /// Reports whether a session may end. A session of an uplink whose interface is gone may.
    pub(super) fn may_break_sessions(self) -> bool {
        matches!(self, Fault::InterfaceRenamed | Fault::CarrierLost)
    }

    /// Makes the fault happen and end.
    pub(super) fn inject(self, testbed: &mut Testbed, uplink: usize) -> Result<()> {
        match self {
            Fault::RouterDies => router_dies(testbed, uplink),
            Fault::CarrierLost => {
                set_carrier(testbed.uplink(uplink), false)?;
                healthy(testbed, uplink, false)?;
                set_carrier(testbed.uplink(uplink), true)?;
                healthy(testbed, uplink, true)
            }
            Fault::Reload => reload(testbed),
            Fault::Kill => {
                testbed.natbox()?.process().kill()?;
                testbed.start()
            }
            Fault::Restart => restart(testbed),
            Fault::NetlinkOverrun => overrun(testbed),
            Fault::RulesRemoved => {
                remove_rules(&testbed.uplink(0).natbox)?;
                rules_are_back(testbed)
            }
            Fault::TunRemoved => {
                testbed.uplink(0).natbox.ip(&["link", "del", "nb1"])?;
                let ended = testbed.natbox()?.process().wait(TIMEOUT)?;
                ensure!(ended.is_some_and(|status| status.code() == Some(2)), "{ended:?}");
                testbed.start()
            }
            Fault::InterfaceRenamed => rename(testbed, uplink),
            Fault::MtuChanged => {
                for mtu in ["1300", "1500"] {
                    let (host, interface) = host_of(testbed, uplink);
                    host.ip(&["link", "set", interface, "mtu", mtu])?;
                    thread::sleep(Duration::from_secs(1));
                }
                Ok(())
            }
            Fault::ClockJumps => {
                [30, -30, 0].iter().try_for_each(|days| set_clock(testbed.directory(), *days))
            }
            Fault::LogFull => {
                testbed.log_is_full = !testbed.log_is_full;
                restart(testbed)
            }
            Fault::HookHelperKilled => {
                router_dies(testbed, uplink)?;
                let helper = hook_helper(testbed)?;
                kill_process(helper, Signal::KILL)?;
                router_dies(testbed, uplink)?;
                ensure!(hook_helper(testbed)? != helper, "a killed process runs the hook");
                Ok(())
            }
        }
    }
}

/// Waits until the status shows an uplink as healthy or not.
fn healthy(testbed: &Testbed, uplink: usize, healthy: bool) -> Result<()> {
    let mut reason = None;
    let waited = wait_for(&format!("uplink {} to be healthy: {healthy}", uplink + 1), || {
        let mut status = testbed.status()?;
        let status = status.uplinks.swap_remove(uplink);
        reason = status.reason;
        Ok((status.healthy == healthy).then_some(()))
    });
    waited.with_context(|| format!("the status says: {reason:?}"))
}

/// The router of an uplink dies and comes back. The hook must run for both.
fn router_dies(testbed: &Testbed, uplink: usize) -> Result<()> {
    for (alive, state) in [(false, "down"), (true, "up")] {
        let log = hook_log(testbed.directory());
        let calls = || fs::read_to_string(&log).unwrap_or_default();
        let before = calls().lines().count();
        set_router(testbed.uplink(uplink), alive)?;
        healthy(testbed, uplink, alive)?;
        let line = format!(" isp{} {state}", uplink + 1);
        wait_for(&format!("the hook:{line}"), || {
            Ok(calls().lines().skip(before).any(|call| call.ends_with(&line)).then_some(()))
        })?;
    }
    Ok(())
}

fn restart(testbed: &mut Testbed) -> Result<()> {
    let status = testbed.natbox()?.process().terminate()?;
    ensure!(status.success(), "{status}");
    testbed.start()
}

/// Adds a forward and removes it.
fn reload(testbed: &mut Testbed) -> Result<()> {
    let plain = testbed.config.clone();
    let more = plain.clone().forward("tcp", 9999, testbed.site.server_address(0), 9999);
    let path = testbed.directory().join(format!("{NAME}.yaml"));
    for config in [more, plain] {
        let socket = testbed.natbox()?.socket().to_owned();
        fs::write(&path, format!("{}admin: {{ socket: {} }}\n", config.text(), socket.display()))?;
        let reloaded: Reloaded = client::request(&socket, &Request::Reload)?;
        ensure!(!reloaded.changed.is_empty(), "{reloaded:?}");
    }
    Ok(())
}

/// Changes more than the socket of a stopped process holds, and removes rules meanwhile.
fn overrun(testbed: &mut Testbed) -> Result<()> {
    testbed.natbox()?.process().signal(Signal::STOP)?;
    let host = &testbed.uplink(0).natbox;
    let mut ip = host.command("ip");
    let mut process = ip.args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut input = process.stdin.take().context("it was asked for")?;
    for change in ["add", "del"] {
        for number in 0..2000 {
            let (high, low) = (number / 250, number % 250);
            writeln!(input, "route {change} unreachable 100.127.{high}.{low}/32 table 4242")?;
        }
    }
    drop(input);
    ensure!(process.wait()?.success());
    remove_rules(host)?;
    testbed.natbox()?.process().signal(Signal::CONT)?;
    rules_are_back(testbed)
}

/// Deletes every rule that does not count as the kernel's.
fn remove_rules(host: &Namespace) -> Result<()> {
    let script = "ip -4 -d rule show | grep -v 'proto kernel' | \
        sed 's/^\\([0-9]*\\):/priority \\1/' | while read rule; do ip rule del $rule; done";
    ensure!(host.command("sh").args(["-c", script]).status()?.success());
    Ok(())
}

/// Waits until natbox has set its rules again.
fn rules_are_back(testbed: &Testbed) -> Result<()> {
    wait_for("the rules", || {
        let rules = testbed.uplink(0).natbox.ip_output(&["rule"])?;
        Ok(rules.contains("iif lan0").then_some(()))
    })
}

fn rename(testbed: &mut Testbed, uplink: usize) -> Result<()> {
    let (host, name) = host_of(testbed, uplink);
    let routes = host.ip_output(&["route", "show", "default", "dev", name])?;
    let change = |from: &str, to: &str| -> Result<()> {
        host.ip(&["link", "set", from, "down"])?;
        host.ip(&["link", "set", from, "name", to])?;
        Ok(host.ip(&["link", "set", to, "up"])?)
    };
    change(name, "renamed0")?;
    healthy(testbed, uplink, false)?;
    change("renamed0", name)?;
    // The kernel has removed the host's own routes over the interface, and nothing else sets them.
    for route in routes.lines() {
        let words = ["route", "replace"].into_iter().chain(route.split_whitespace());
        host.ip(&words.chain(["dev", name]).collect::<Vec<_>>())?;
    }
    healthy(testbed, uplink, true)
}

/// The namespace of the box, and the interface of an uplink.
fn host_of(testbed: &Testbed, uplink: usize) -> (&Namespace, &str) {
    let uplink = testbed.uplink(uplink);
    (&uplink.natbox, &uplink.interface)
}

/// Returns the process that has run the hook last.
fn hook_helper(testbed: &Testbed) -> Result<Pid> {
    let log = fs::read_to_string(hook_log(testbed.directory()))?;
    let pid = log.lines().last().and_then(|line| line.split(' ').next()?.parse().ok());
    pid.and_then(Pid::from_raw).context("the hook has not run")
}
