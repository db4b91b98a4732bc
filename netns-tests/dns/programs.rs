//! dig, two external name servers, and their clients.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use natbox::lab::topology::CLIENTS;
use natbox::lab::{Child, Lab, Namespace};

use crate::lab::{output, require, wait_for};

/// Asks a server and returns dig's output without question and statistics.
pub(crate) fn dig(namespace: &Namespace, server: Ipv4Addr, arguments: &[&str]) -> Result<String> {
    require("dig")?;
    let mut command = namespace.command("dig");
    command.arg(format!("@{server}")).args([
        "+norecurse",
        "+tries=3",
        "+timeout=2",
        "+nostats",
        "+nocmd",
    ]);
    command.args(arguments);
    output(command)
}

/// Returns the answers only, one line each: the data of the records, sorted.
pub(crate) fn short(
    namespace: &Namespace,
    server: Ipv4Addr,
    arguments: &[&str],
) -> Result<Vec<String>> {
    let text = dig(namespace, server, &[&["+short"], arguments].concat())?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// An external name server. A drop ends it.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn log(&self) -> String {
        self.0.log()
    }
}

/// Starts a recursive resolver (unbound with its defaults) that knows only this root server.
pub(crate) fn resolver(
    lab: &Lab,
    namespace: &Namespace,
    address: Ipv4Addr,
    root: Ipv4Addr,
) -> Result<Server> {
    resolver_with(lab, namespace, address, root, "")
}

/// Does the same with further lines of its `server` clause.
pub(crate) fn resolver_with(
    lab: &Lab,
    namespace: &Namespace,
    address: Ipv4Addr,
    root: Ipv4Addr,
    options: &str,
) -> Result<Server> {
    require("unbound")?;
    let directory = directory(lab, "unbound")?;
    let hints = directory.join("root.hints");
    fs::write(&hints, format!(". 3600 IN NS root.\nroot. 3600 IN A {root}\n"))?;
    let text = format!(
        "server:\n  directory: \"{dir}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         do-daemonize: no\n  num-threads: 1\n  interface: {address}\n  outgoing-interface: {address}\n  \
         access-control: 0.0.0.0/0 allow\n  do-ip6: no\n  module-config: \"iterator\"\n  root-hints: \"{hints}\"\n  \
         so-rcvbuf: 0\n  so-sndbuf: 0\n{options}\
         remote-control:\n  control-enable: no\n",
        dir = directory.display(),
        hints = hints.display(),
    );
    let path = directory.join("unbound.conf");
    fs::write(&path, text)?;
    let mut command = namespace.command("unbound");
    command.args(["-d", "-c"]).arg(&path);
    started(namespace, "unbound", command, address)
}

/// `/etc/resolv.conf` of a namespace, which `ip netns exec` mounts.
pub(crate) struct StubResolver(PathBuf);

impl StubResolver {
    pub(crate) fn new(namespace: &Namespace, server: Ipv4Addr) -> Result<Self> {
        let directory = PathBuf::from("/etc/netns").join(namespace.name());
        fs::create_dir_all(&directory)?;
        let this = Self(directory);
        fs::write(this.0.join("resolv.conf"), format!("nameserver {server}\n"))?;
        Ok(this)
    }
}

impl Drop for StubResolver {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Fails if another process has files there.
        let _ = fs::remove_dir("/etc/netns");
    }
}

/// A zone for [`authority`].
pub(crate) struct ServedZone<'t> {
    pub name: &'t str,
    /// Records beside the SOA, as lines of a zone file.
    pub records: &'t str,
    /// Statements of the `zone` clause.
    pub options: &'t str,
}

/// Starts an authoritative server (BIND) for some zones. `options` stand at the top of its
/// configuration.
pub(crate) fn authority(
    lab: &Lab,
    namespace: &Namespace,
    label: &str,
    address: Ipv4Addr,
    options: &str,
    zones: &[ServedZone<'_>],
) -> Result<Server> {
    require("named")?;
    let directory = directory(lab, label)?;
    let mut text = format!(
        "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; listen-on {{ {address}; }}; \
         listen-on-v6 {{ none; }}; recursion no; notify no; dnssec-validation no; managed-keys-directory \"{dir}\"; }};\n\
         controls {{ }};\n{options}\n",
        dir = directory.display()
    );
    for (number, zone) in zones.iter().enumerate() {
        let file = directory.join(format!("zone{number}"));
        let soa = "@ 3600 IN SOA ns hostmaster 1 3600 600 86400 5";
        fs::write(&file, format!("$ORIGIN {}\n{soa}\n{}\n", zone.name, zone.records))?;
        text.push_str(&format!(
            "zone \"{}\" {{ type primary; file \"{}\"; {} }};\n",
            zone.name,
            file.display(),
            zone.options
        ));
    }
    let path = directory.join("named.conf");
    fs::write(&path, text)?;
    let mut command = namespace.command("named");
    command.args(["-g", "-n", "1", "-c"]).arg(&path);
    started(namespace, label, command, address)
}

/// 32 bytes, as tsig-keygen makes them.
pub(crate) const SECRET_256: &str = "qz2R0c8lyQJ4KBUeSyYvFhFGwxWZKb4QFj7b+TfOvO0=";

/// Formats a key as [`authority`] takes it among its options.
pub(crate) fn key(name: &str, algorithm: &str, secret: &str) -> String {
    format!("key {name} {{ algorithm {algorithm}; secret \"{secret}\"; }};\n")
}

/// Starts a server of example.org at [`CLIENTS`]`[3]` with some records of other owners. `keys` are
/// its options, and the keys in `allowed` may update it.
pub(crate) fn served(
    lab: &Lab,
    namespace: &Namespace,
    keys: &str,
    allowed: &str,
) -> Result<Server> {
    let zone = ServedZone {
        name: "example.org.",
        records: "@ 60 IN NS ns\nns 60 IN A 192.0.2.14\nwww 60 IN A 192.0.2.99\nwww 60 IN TXT \"stays\"",
        options: &format!("allow-update {{ {allowed}; }};"),
    };
    authority(lab, namespace, "named", CLIENTS[3], keys, &[zone])
}

fn directory(lab: &Lab, name: &str) -> Result<PathBuf> {
    let directory = lab.directory().join(name);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn started(
    namespace: &Namespace,
    label: &str,
    command: std::process::Command,
    address: Ipv4Addr,
) -> Result<Server> {
    let mut process = namespace.spawn(label, command)?;
    wait_for(&format!("{label} to answer"), || {
        if let Some(status) = process.ended()? {
            bail!("{label} ended ({status}):\n{}", process.log());
        }
        Ok(dig(namespace, address, &["+tries=1", "+timeout=1", "version.bind", "CH", "TXT"]).ok())
    })?;
    Ok(Server(process))
}
