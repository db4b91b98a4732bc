//! A zone that lives elsewhere is told, and a program of the user's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use natbox::cli::demo::boxes::NatBox;
use natbox::cli::demo::topology::{CLIENTS, Private};
use rustix::process::Signal;

use super::programs::{ServedZone, Server, authority, short};
use super::start_box;
use crate::lab::{Site, wait_for};

/// 32 bytes and 64 bytes, as tsig-keygen makes them.
const SECRET_256: &str = "qz2R0c8lyQJ4KBUeSyYvFhFGwxWZKb4QFj7b+TfOvO0=";
const SECRET_512: &str =
    "pWc0oDkcU1DsDJ1MRhC6Gz1J9GYnXgqq2d7W0l7nKcl8yqRxxyN8cYVQy0bmqS0gF1tZrPpN9Qm1dV8t3kKf3w==";

/// A box with a real line and a second one that is only an interface, which can go down.
struct Scene {
    site: Site,
}

impl Scene {
    fn new() -> Result<Self> {
        let site = Site::new(Private::Shared, 1)?;
        let host = &site.line(0).natbox;
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

    /// Starts the box; `dns` is the rest of its section.
    fn start(&self, dns: &str) -> Result<NatBox> {
        let text = format!(
            "name: natbox1\ntun: {{ name: nb1 }}\ninside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\nuplinks:\n\
             - {{ name: isp1, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.254 }}\n\
             - {{ name: isp 2, interface: wan1, addresses: [198.51.100.10], gateway: 198.51.100.254 }}\n\
             dns: {{ zone: example.org, names: [{{ name: www }}, {{ name: one, uplinks: [isp1] }}], listen: false, {dns} }}\n"
        );
        start_box(&self.site.lab, &self.site.line(0).natbox, "natbox1", &text)
    }

    /// The second line's interface.
    fn set_line(&self, state: &str) -> Result<()> {
        Ok(self.site.line(0).natbox.ip(&["link", "set", "wan1", state])?)
    }

    /// A server that takes updates with the keys `k256` and `k512`.
    fn authority(&self) -> Result<Server> {
        let keys = format!(
            "key k256 {{ algorithm hmac-sha256; secret \"{SECRET_256}\"; }};\n\
             key k512 {{ algorithm hmac-sha512; secret \"{SECRET_512}\"; }};"
        );
        let zone = ServedZone {
            name: "example.org.",
            records: "@ 60 IN NS ns\nns 60 IN A 192.0.2.14\nwww 60 IN A 192.0.2.99\nwww 60 IN TXT \"stays\"",
            options: "allow-update { key k256; key k512; };",
        };
        authority(&self.site.lab, self.site.client(), "named", CLIENTS[3], &keys, &[zone])
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
fn a_zone_elsewhere_follows_the_lines() -> Result<()> {
    let scene = Scene::new()?;
    let secret = |name: &str| scene.directory().join(name).display().to_string();
    let update = |key: &str, records: &str| {
        format!(
            "update: {{ server: 192.0.2.14, key: k{key}, algorithm: hmac-sha{key}, secret_file: \"{}\", records: {records} }}",
            secret(key)
        )
    };
    // The server is not there yet: it is tried again.
    let mut natbox = scene.start(&update("256", "all"))?;
    wait_for("a first attempt", || Ok(natbox.process().log().contains("DNS not updated").then_some(())))?;
    let named = scene.authority()?;
    let both = ["198.51.100.10", "203.0.113.10"];
    let result = (|| {
        scene.wait_for("www", &both)?;
        scene.wait_for("one", &["203.0.113.10"])?;
        scene.set_line("down")?;
        scene.wait_for("www", &["203.0.113.10"])?;
        scene.set_line("up")?;
        scene.wait_for("www", &both)?;
        let text = short(scene.site.client(), CLIENTS[3], &["www.example.org", "TXT"])?;
        ensure!(text == ["\"stays\""], "{text:?}");
        let updates = natbox.process().log().matches("DNS updated").count();
        drop(natbox);

        // Only its own records, with the other algorithm.
        let mut natbox = scene.start(&update("512", "own"))?;
        wait_for("the update", || {
            Ok((natbox.process().log().matches("DNS updated").count() > updates).then_some(()))
        })?;
        named_takes(&scene, "update add www.example.org 60 A 192.0.2.77")?;
        scene.set_line("down")?;
        scene.wait_for("www", &["192.0.2.77", "203.0.113.10"])?;
        scene.set_line("up")?;
        scene.wait_for("www", &["192.0.2.77", "198.51.100.10", "203.0.113.10"])?;
        drop(natbox);

        // A wrong secret is told, and changes nothing.
        fs::write(secret("256"), SECRET_512)?;
        let mut natbox = scene.start(&update("256", "all"))?;
        wait_for("the refusal", || {
            Ok(natbox.process().log().contains("not signed as it should be").then_some(()))
        })?;
        scene.wait_for("www", &["192.0.2.77", "198.51.100.10", "203.0.113.10"])
    })();
    result.with_context(|| named.log())
}

/// Has nsupdate, the server's own program, do something.
fn named_takes(scene: &Scene, command: &str) -> Result<()> {
    crate::lab::require("nsupdate")?;
    let script = scene.directory().join("nsupdate.txt");
    fs::write(&script, format!("server {}\n{command}\nsend\n", CLIENTS[3]))?;
    let mut process = scene.site.client().command("nsupdate");
    process.args(["-y", &format!("hmac-sha256:k256:{SECRET_256}")]).arg(&script);
    crate::lab::output(process).map(drop)
}

#[test]
fn a_hook_hears_of_every_change_and_ends_with_the_box() -> Result<()> {
    let scene = Scene::new()?;
    let hook = scene.directory().join("hook");
    let log = scene.directory().join("hook.log");
    // What the box itself may not do any more, its hook may.
    let text = format!(
        "#!/bin/sh\necho $PPID >{log}.helper\n\
         echo \"$NATBOX_LINE $NATBOX_STATE $NATBOX_USABLE_ADDRESSES\" >>{log}\n[ \"$NATBOX_STATE\" = up ] || exit 7\n",
        log = log.display()
    );
    fs::write(&hook, text)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700))?;
    let mut natbox = scene.start(&format!("hook: \"{}\"", hook.display()))?;
    let mut wanted = "isp1 up 203.0.113.10 198.51.100.10\nisp 2 up 203.0.113.10 198.51.100.10\n".to_owned();
    wait_for_text(&log, &wanted)?;
    scene.set_line("down")?;
    wanted.push_str("isp 2 down 203.0.113.10\n");
    wait_for_text(&log, &wanted)?;
    wait_for("the hook's failure in the log", || {
        Ok(natbox.process().log().contains("the hook failed").then_some(()))
    })?;
    scene.set_line("up")?;
    wanted.push_str("isp 2 up 203.0.113.10 198.51.100.10\n");
    wait_for_text(&log, &wanted)?;

    for signal in [Signal::TERM, Signal::KILL] {
        let helper = fs::read_to_string(log.with_extension("log.helper"))?.trim().to_owned();
        let process = Path::new("/proc").join(&helper);
        ensure!(fs::read_to_string(process.join("cmdline"))?.contains("run-hooks"), "{helper}");
        natbox.process().signal(signal)?;
        wait_for("the helper's end", || Ok((!process.exists()).then_some(())))?;
        natbox.process().wait(crate::lab::PATIENCE)?.context("the box does not end")?;
        if signal == Signal::TERM {
            fs::remove_file(&log)?;
            natbox = scene.start(&format!("hook: \"{}\"", hook.display()))?;
            wait_for_text(&log, "isp1 up 203.0.113.10 198.51.100.10\nisp 2 up 203.0.113.10 198.51.100.10\n")?;
        }
    }
    Ok(())
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
