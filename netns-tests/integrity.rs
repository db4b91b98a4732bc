//! Bulk data arrives bit for bit with every combination of offloads.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Nginx, Site, output, require};

/// Size of the file, in bytes.
const SIZE: u64 = 1 << 30;

/// Longest time for one download.
const LIMIT: Duration = Duration::from_secs(180);

/// Each offload level of natbox, as configured and as shown by the status, and the bytes that are
/// downloaded at this level.
const LEVELS: [(&str, &str, u64); 4] = [
    ("tso+uso", "tso4+uso4+checksum", SIZE),
    ("tso", "tso4+checksum", SIZE / 4),
    ("checksum", "checksum", SIZE / 4),
    ("none", "none", SIZE / 4),
];

#[test]
fn a_download_over_both_uplinks_at_once_is_intact_with_interface_offloads() -> Result<()> {
    let _proof = crate::conformance::proves(&["CSUM-5"]);
    downloads_are_intact(true)
}

#[test]
fn a_download_over_both_uplinks_at_once_is_intact_without_interface_offloads() -> Result<()> {
    let _proof = crate::conformance::proves(&["CSUM-5"]);
    downloads_are_intact(false)
}

/// At every offload level, curl fetches the first half over uplink 1 and the second half over
/// uplink 2 at the same time. The joined halves must have the SHA-256 of the original.
fn downloads_are_intact(interface_offloads: bool) -> Result<()> {
    require("curl")?;
    require("sha256sum")?;
    let site = Site::new(Private::Shared, 1)?;
    if !interface_offloads {
        switch_offloads_off(&site)?;
    }
    let files = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let original = files.path().join("original");
    write_noise(&original)?;
    let listen = [0, 1].map(|uplink| SocketAddrV4::new(site.server_address(uplink), 80));
    let _nginx = Nginx::start(&site.lab, site.server(), "nginx", files.path(), &listen)?;

    for (offload, level, size) in LEVELS {
        let wanted = sha256(size, &[&original])?;
        let mut boxes = Vec::new();
        for uplink in [0, 1] {
            let mut config = site.web_config(uplink);
            config.offload = offload;
            boxes.push(site.start(uplink, &config)?);
        }
        let found = boxes[0].status()?.tun.offload;
        ensure!(found == level, "asked for {offload}, wanted {level}, found {found}");

        let halves = [files.path().join("first"), files.path().join("second")];
        let ranges = [format!("0-{}", size / 2 - 1), format!("{}-{}", size / 2, size - 1)];
        let mut downloads = Vec::new();
        for uplink in [0, 1] {
            let mut curl = site.client().command("curl");
            curl.args([
                "-sS",
                "--fail",
                "--interface",
                &CLIENTS[uplink].to_string(),
                "--range",
                &ranges[uplink],
            ]);
            curl.arg("-o").arg(&halves[uplink]);
            curl.arg(format!("http://{}/original", site.uplink(uplink).endpoint(80)));
            downloads.push(site.client().spawn(&format!("curl-{offload}-{uplink}"), curl)?);
        }
        for download in &mut downloads {
            match download.wait(LIMIT)? {
                Some(status) if status.success() => {}
                Some(status) => bail!("offload {offload}: {status}\n{}", download.log()),
                None => {
                    bail!("offload {offload}: `{}` took more than {LIMIT:?}", download.command())
                }
            }
        }
        let found = sha256(size, &[&halves[0], &halves[1]])?;
        ensure!(found == wanted, "offload {offload}: SHA-256 is {found}, wanted {wanted}");
        for mut natbox in boxes {
            let status = natbox.process().terminate()?;
            ensure!(status.success(), "natbox ended with {status}:\n{}", natbox.process().log());
        }
    }
    Ok(())
}

fn switch_offloads_off(site: &Site) -> Result<()> {
    require("ethtool")?;
    let topology = &site.topology;
    let mut ends = vec![(&topology.servers[0].namespace, "eth0"), (&topology.lans[0], "srv1")];
    for (uplink, interface, port) in [(0, "isp1", "box1"), (1, "isp2", "box2")] {
        ends.extend([
            (&topology.client, interface),
            (&topology.uplinks[uplink].provider, "net0"),
            (&topology.uplinks[uplink].provider, "box0"),
            (&topology.uplinks[uplink].natbox, "wan0"),
            (&topology.uplinks[uplink].natbox, "lan0"),
            (&topology.lans[0], port),
        ]);
    }
    for (namespace, interface) in ends {
        let mut command = namespace.command("ethtool");
        command.args([
            "-K", interface, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off",
        ]);
        output(command)?;
    }
    Ok(())
}

/// Writes bytes without repetition, so that a displaced byte is detected.
fn write_noise(path: &Path) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..SIZE / 8 {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    ensure!(fs::metadata(path)?.len() == SIZE);
    Ok(())
}

/// Returns the SHA-256 of the first bytes of the concatenated files, computed by coreutils.
fn sha256(size: u64, parts: &[&Path]) -> Result<String> {
    let mut command = Command::new("sh");
    let script = "head=$1; shift; cat \"$@\" | head -c \"$head\" | sha256sum";
    command.args(["-c", script, "sh"]).arg(size.to_string()).args(parts);
    Ok(output(command)?.split(' ').next().context("sha256sum printed nothing")?.to_owned())
}
