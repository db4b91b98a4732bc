//! External programs in a namespace.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::{Child, Lab, Namespace, command_line};

use super::wait_for;

/// Fails if a program is not installed.
pub(crate) fn require(program: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ensure!(
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file()),
        "this test needs {program}, which is not installed: netns-tests/run installs it"
    );
    Ok(())
}

/// Runs a command to its end and returns its output. Fails with the output if the command fails.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("start {}", command_line(&command)))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!("{}: {status}\n{text}{}", command_line(&command), String::from_utf8_lossy(&stderr));
    }
    Ok(text)
}

/// Runs curl from an address of the namespace and returns the body. HTTP errors are errors.
pub(crate) fn curl(namespace: &Namespace, from: Ipv4Addr, arguments: &[&str]) -> Result<String> {
    require("curl")?;
    let mut command = namespace.command("curl");
    command
        .args(["-sS", "--fail", "--max-time", "20", "--interface", &from.to_string()])
        .args(arguments);
    output(command)
}

/// Pings from an address of the namespace. Fails unless every echo is answered.
pub(crate) fn ping(namespace: &Namespace, from: Ipv4Addr, to: Ipv4Addr, count: u32) -> Result<()> {
    require("ping")?;
    let mut command = namespace.command("ping");
    command.args(["-n", "-i", "0.1", "-W", "2", "-c", &count.to_string()]);
    let text = output({
        command.args(["-I", &from.to_string(), &to.to_string()]);
        command
    })?;
    ensure!(text.contains(&format!("{count} received")), "lost echoes:\n{text}");
    Ok(())
}

/// Returns the hops that traceroute reports. Fails if a hop does not answer.
pub(crate) fn hops(
    namespace: &Namespace,
    arguments: &[&str],
    to: Ipv4Addr,
) -> Result<Vec<Ipv4Addr>> {
    require("traceroute")?;
    let mut command = namespace.command("traceroute");
    command
        .args(["-n", "-q", "1", "-w", "2", "-m", "6", "-N", "1"])
        .args(arguments)
        .arg(to.to_string());
    let text = output(command)?;
    let hops = text.lines().skip(1).map(|line| line.split_whitespace().nth(1)?.parse().ok());
    hops.collect::<Option<_>>().with_context(|| format!("a hop without a reply:\n{text}"))
}

/// A running nginx with all its files in one directory.
pub(crate) struct Nginx {
    directory: PathBuf,
    _process: Child,
}

impl Nginx {
    /// Serves the files of `root` on each of `addresses`. The log has a line `CLIENT SERVER` for
    /// each request.
    pub(crate) fn start(
        lab: &Lab,
        namespace: &Namespace,
        name: &str,
        root: &Path,
        addresses: &[SocketAddrV4],
    ) -> Result<Nginx> {
        Nginx::start_with(lab, namespace, name, root, addresses, "")
    }

    /// Serves as [`Self::start`] does, with a limited rate of each answer, in bytes a second.
    pub(crate) fn slow(
        lab: &Lab,
        namespace: &Namespace,
        name: &str,
        root: &Path,
        address: SocketAddrV4,
        rate: u32,
    ) -> Result<Nginx> {
        let limit = format!("limit_rate {rate};");
        Nginx::start_with(lab, namespace, name, root, &[address], &limit)
    }

    /// `directive`: a further directive of the server.
    fn start_with(
        lab: &Lab,
        namespace: &Namespace,
        name: &str,
        root: &Path,
        addresses: &[SocketAddrV4],
        directive: &str,
    ) -> Result<Nginx> {
        require("nginx")?;
        let directory = lab.directory().join(name);
        fs::create_dir(&directory)?;
        let listens: String =
            addresses.iter().map(|address| format!("    listen {address};\n")).collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", directory.display()))
            .collect();
        // The workers run as root, because only root may enter the directories. Debian's modules
        // are not loaded.
        let text = format!(
            "user root;\nworker_processes 2;\nworker_rlimit_nofile 8192;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  log_format short '$remote_addr $server_addr';\n  access_log {dir}/access.log short;\n\
             {temporary}  sendfile on;\n  keepalive_requests 100000;\n  server {{\n{listens}    root {root};\n    {directive}\n  }}\n}}\n",
            dir = directory.display(),
            root = root.display(),
        );
        let path = directory.join("nginx.conf");
        fs::write(&path, text)?;
        let mut command = namespace.command("nginx");
        command.args(["-g", "daemon off;", "-e"]).arg(directory.join("error.log"));
        command.arg("-p").arg(&directory).arg("-c").arg(&path);
        let mut process = namespace.spawn(name, command)?;
        wait_for("nginx to listen", || {
            if let Some(status) = process.ended()? {
                bail!("nginx ended ({status}):\n{}", process.log());
            }
            Ok(namespace.enter(|| TcpStream::connect(addresses[0]))?.ok())
        })?;
        Ok(Nginx { directory, _process: process })
    }

    /// Returns the lines `CLIENT SERVER` of the access log so far.
    pub(crate) fn requests(&self) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>> {
        let text = fs::read_to_string(self.directory.join("access.log"))?;
        text.lines()
            .map(|line| {
                let (client, server) =
                    line.split_once(' ').context("an unexpected line in nginx's log")?;
                Ok((client.parse()?, server.parse()?))
            })
            .collect()
    }
}
