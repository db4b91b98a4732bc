//! Updates of a zone on another server, and the user's hook.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use natbox::api::DnsStatus;
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::{CLIENTS, Private};
use rustix::process::{Pid, Signal, kill_process};

use super::programs::{SECRET_256, Server, key, served, short};
use super::start_box;
use crate::lab::{NATBOX, Site, output, wait_for};

/// 64 bytes, as tsig-keygen makes them.
const SECRET_512: &str =
    "pWc0oDkcU1DsDJ1MRhC6Gz1J9GYnXgqq2d7W0l7nKcl8yqRxxyN8cYVQy0bmqS0gF1tZrPpN9Qm1dV8t3kKf3w==";

/// A box with a real uplink and a second one that is only an interface, which can go down.
struct Testbed {
    site: Site,
}

impl Testbed {
    fn new() -> Result<Self> {
        let site = Site::new(Private::Shared, 1)?;
        let host = &site.uplink(0).natbox;
        let nowhere = site.lab.namespace("nowhere")?;
        site.lab.veth(50, (host, "wan1"), (&nowhere, "end"))?;
        host.address("wan1", [198, 51, 100, 1].into(), 24)?;
        for (name, secret) in [("256", SECRET_256), ("512", SECRET_512)] {
            fs::write(site.lab.directory().join(name), format!("{secret}\n"))?;
        }
        Ok(Self { site })
    }

    fn directory(&self) -> &Path {
        self.site.lab.directory()
    }

    /// Starts the box. `dns` is the rest of its section.
    fn start(&self, dns: &str) -> Result<NatBox> {
        self.start_at("198.51.100.10", dns)
    }

    /// Starts the box with another address of the second uplink.
    fn start_at(&self, second: &str, dns: &str) -> Result<NatBox> {
        let text = format!(
            "name: natbox1\ntun: {{ name: nb1 }}\ninside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\nuplinks:\n\
             - {{ name: isp1, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.254 }}\n\
             - {{ name: isp 2, interface: wan1, addresses: [{second}], gateway: 198.51.100.254 }}\n\
             dns: {{ zone: example.org, names: [{{ name: www }}, {{ name: one, uplinks: [isp1] }}], listen: false, {dns} }}\n"
        );
        start_box(&self.site.lab, &self.site.uplink(0).natbox, "natbox1", &text)
    }

    /// Sets the state of the second uplink's interface.
    fn set_uplink(&self, state: &str) -> Result<()> {
        Ok(self.site.uplink(0).natbox.ip(&["link", "set", "wan1", state])?)
    }

    /// Starts a server that accepts updates with the keys `k256` and `k512`.
    fn authority(&self) -> Result<Server> {
        let keys = key("k256", "hmac-sha256", SECRET_256) + &key("k512", "hmac-sha512", SECRET_512);
        served(&self.site.lab, self.site.client(), &keys, "key k256; key k512")
    }

    fn wait_for(&self, name: &str, wanted: &[&str]) -> Result<()> {
        let mut last = Vec::new();
        wait_for(&format!("{name} to be {wanted:?}"), || {
            last = short(self.site.client(), CLIENTS[3], &[&format!("{name}.example.org"), "A"])?;
            Ok((last == wanted).then_some(()))
        })
        .with_context(|| format!("last seen: {last:?}"))
    }
}

#[test]
fn updates_keep_a_zone_on_another_server_current() -> Result<()> {
    let testbed = Testbed::new()?;
    let secret = |name: &str| testbed.directory().join(name).display().to_string();
    let update = |key: &str, replaced: &str| {
        format!(
            "update: {{ server: 192.0.2.14, key: k{key}, algorithm: hmac-sha{key}, secret_file: \"{}\", replace: {replaced} }}",
            secret(key)
        )
    };
    // The server does not run yet: the box tries again.
    let mut natbox = testbed.start(&update("256", "all"))?;
    wait_for("a first attempt", || {
        Ok(natbox.process().log().contains("the update failed").then_some(()))
    })?;
    let error = dns(&natbox)?.update_error.context("the failure is not in the status")?;
    ensure!(error.contains("the server cannot be reached"), "{error}");
    ensure!(status_text(&testbed, &natbox)?.contains(&format!("update failed: {error}")));
    let named = testbed.authority()?;
    let both = ["198.51.100.10", "203.0.113.10"];
    let result = (|| {
        testbed.wait_for("www", &both)?;
        testbed.wait_for("one", &["203.0.113.10"])?;
        wait_for("the end of the error", || {
            Ok(dns(&natbox)?.update_error.is_none().then_some(()))
        })?;
        testbed.set_uplink("down")?;
        testbed.wait_for("www", &["203.0.113.10"])?;
        testbed.set_uplink("up")?;
        testbed.wait_for("www", &both)?;
        let text = short(testbed.site.client(), CLIENTS[3], &["www.example.org", "TXT"])?;
        ensure!(text == ["\"stays\""], "{text:?}");
        let updates = natbox.process().log().matches("the server accepted an update").count();
        drop(natbox);

        // Only its own records, with the other algorithm.
        let mut natbox = testbed.start(&update("512", "own"))?;
        wait_for("the update", || {
            Ok((natbox.process().log().matches("the server accepted an update").count() > updates)
                .then_some(()))
        })?;
        named_takes(&testbed, "update add www.example.org 60 A 192.0.2.77")?;
        testbed.set_uplink("down")?;
        testbed.wait_for("www", &["192.0.2.77", "203.0.113.10"])?;
        testbed.set_uplink("up")?;
        testbed.wait_for("www", &["192.0.2.77", "198.51.100.10", "203.0.113.10"])?;
        drop(natbox);

        // An address that changes while no box runs is replaced. Records of other owners stay.
        let natbox = testbed.start_at("198.51.100.11", &update("512", "own"))?;
        testbed.wait_for("www", &["192.0.2.77", "198.51.100.11", "203.0.113.10"])?;
        drop(natbox);

        // A wrong secret is reported and changes nothing.
        fs::write(secret("256"), SECRET_512)?;
        let mut natbox = testbed.start(&update("256", "all"))?;
        wait_for("the refusal", || {
            Ok(natbox.process().log().contains("has another secret for the key k256").then_some(()))
        })?;
        testbed.wait_for("www", &["192.0.2.77", "198.51.100.11", "203.0.113.10"])
    })();
    result.with_context(|| named.log())
}

fn dns(natbox: &NatBox) -> Result<DnsStatus> {
    natbox.status()?.dns.context("no DNS in the status")
}

/// Returns the output of `natbox status`.
fn status_text(testbed: &Testbed, natbox: &NatBox) -> Result<String> {
    let mut command = testbed.site.uplink(0).natbox.command(NATBOX);
    command.args(["status", "--socket"]).arg(natbox.socket());
    output(command)
}

/// Runs a command of nsupdate, the server's own program.
fn named_takes(testbed: &Testbed, command: &str) -> Result<()> {
    crate::lab::require("nsupdate")?;
    let script = testbed.directory().join("nsupdate.txt");
    fs::write(&script, format!("server {}\n{command}\nsend\n", CLIENTS[3]))?;
    let mut process = testbed.site.client().command("nsupdate");
    process.args(["-y", &format!("hmac-sha256:k256:{SECRET_256}")]).arg(&script);
    output(process).map(drop)
}

#[test]
fn hook_runs_for_every_change_and_ends_with_the_box() -> Result<()> {
    let testbed = Testbed::new()?;
    let hook = testbed.directory().join("hook");
    let log = testbed.directory().join("hook.log");
    // The hook may do what the box itself may not do any more.
    let text = format!(
        "#!/bin/sh\necho $PPID >{log}.helper\n\
         echo \"$NATBOX_UPLINK $NATBOX_STATE $NATBOX_UP_ADDRESSES\" >>{log}\n[ \"$NATBOX_STATE\" = up ] || exit 7\n",
        log = log.display()
    );
    fs::write(&hook, text)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700))?;
    let mut natbox = testbed.start(&format!("hook: \"{}\"", hook.display()))?;
    let mut wanted =
        "isp1 up 203.0.113.10 198.51.100.10\nisp 2 up 203.0.113.10 198.51.100.10\n".to_owned();
    wait_for_text(&log, &wanted)?;
    testbed.set_uplink("down")?;
    wanted.push_str("isp 2 down 203.0.113.10\n");
    wait_for_text(&log, &wanted)?;
    wait_for("the hook's failure in the log", || {
        Ok(natbox.process().log().contains("dns.hook: failed").then_some(()))
    })?;
    testbed.set_uplink("up")?;
    wanted.push_str("isp 2 up 203.0.113.10 198.51.100.10\n");
    wait_for_text(&log, &wanted)?;

    for signal in [Signal::TERM, Signal::KILL] {
        let helper = fs::read_to_string(log.with_extension("log.helper"))?.trim().to_owned();
        let process = Path::new("/proc").join(&helper);
        ensure!(fs::read_to_string(process.join("cmdline"))?.contains("run-hooks"), "{helper}");
        natbox.process().signal(signal)?;
        wait_for("the helper's end", || Ok((!process.exists()).then_some(())))?;
        natbox.process().wait(crate::lab::TIMEOUT)?.context("the box does not end")?;
        if signal == Signal::TERM {
            fs::remove_file(&log)?;
            natbox = testbed.start(&format!("hook: \"{}\"", hook.display()))?;
            wait_for_text(
                &log,
                "isp1 up 203.0.113.10 198.51.100.10\nisp 2 up 203.0.113.10 198.51.100.10\n",
            )?;
        }
    }
    Ok(())
}

/// One process runs the hook, and another one stands by.
#[test]
fn killed_hook_helper_is_replaced() -> Result<()> {
    let testbed = Testbed::new()?;
    let hook = testbed.directory().join("hook");
    let helper = testbed.directory().join("helper");
    let text =
        format!("#!/bin/sh\necho $PPID $NATBOX_UPLINK $NATBOX_STATE >{}\n", helper.display());
    fs::write(&hook, text)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700))?;
    let natbox = testbed.start(&format!("hook: \"{}\"", hook.display()))?;
    // Returns the process that has run the hook for the second uplink.
    let runner = |state: &str| {
        wait_for(&format!("the hook, {state}"), || {
            let text = fs::read_to_string(&helper).unwrap_or_default();
            let pid = text.trim().strip_suffix(&format!(" isp 2 {state}"));
            Ok(pid.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw))
        })
    };
    let first = runner("up")?;
    child(first)?;
    kill_process(first, Signal::KILL)?;
    testbed.set_uplink("down")?;
    let second = runner("down")?;
    ensure!(first != second && dns(&natbox)?.hook_error.is_none());
    kill_process(second, Signal::KILL)?;
    testbed.set_uplink("up")?;
    let third = runner("up")?;

    // Both at once: no process is left that could start another one.
    kill_process(child(third)?, Signal::KILL)?;
    kill_process(third, Signal::KILL)?;
    let error = wait_for("the loss in the status", || Ok(dns(&natbox)?.hook_error))?;
    ensure!(error.contains("restart natbox"), "{error}");
    ensure!(status_text(&testbed, &natbox)?.contains(&format!("hook failed: {error}")));
    Ok(())
}

/// Waits until a process has a child, which stands by for it.
fn child(parent: Pid) -> Result<Pid> {
    let threads = format!("/proc/{}/task", parent.as_raw_nonzero());
    wait_for("the process that stands by", || {
        let children = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
        let texts = fs::read_dir(&threads)?.flatten().filter_map(|thread| children(thread).ok());
        let pids: Vec<i32> = texts
            .flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|pid| pid.parse().ok())
            .collect();
        // The other children are hooks.
        let stands_by = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with("natbox\0")
        };
        Ok(pids.into_iter().find(stands_by).and_then(Pid::from_raw))
    })
}

fn wait_for_text(path: &Path, wanted: &str) -> Result<()> {
    let mut last = String::new();
    wait_for("the hook's log", || {
        last = fs::read_to_string(path).unwrap_or_default();
        if !wanted.starts_with(&last) {
            bail!("the hook wrote\n{last}instead of\n{wanted}");
        }
        Ok((last == wanted).then_some(()))
    })
    .with_context(|| format!("it has written\n{last}"))
}
