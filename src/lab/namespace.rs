//! One network namespace: addresses, routes, shaping, sysctls, and programs inside it.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::child::Child;
use super::error::LabError;
use super::owner::LabOwner;
use super::tool::{own_group, run_tool};

/// A network namespace. A clone is a handle to the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(super) owner: Arc<LabOwner>,
    pub(super) name: Arc<str>,
    pub(super) file: Arc<File>,
}

impl Namespace {
    /// Returns the name as in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for the result.
    ///
    /// # Errors
    /// The thread could not be started or could not enter. A panic of `work` continues in the
    /// caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| {
                        LabError::system(format!("enter namespace {}", self.name))(error.into())
                    })?;
                Ok(work())
            };
            let thread = thread::Builder::new()
                .spawn_scoped(scope, inside)
                .map_err(LabError::system("start a thread"))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip -n NAME ARGUMENTS`.
    ///
    /// # Errors
    /// [`LabError::Command`] with the message of `ip`.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), LabError> {
        run_tool(Command::new("ip").args(["-n", self.name()]).args(arguments)).map(drop)
    }

    /// Runs `ip -n NAME ARGUMENTS` and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] with the message of `ip`.
    pub fn ip_output(&self, arguments: &[&str]) -> Result<String, LabError> {
        let output = run_tool(Command::new("ip").args(["-n", self.name()]).args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Adds an address with its prefix length to an interface.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn address(&self, interface: &str, address: Ipv4Addr, prefix: u8) -> Result<(), LabError> {
        self.ip(&["addr", "add", &format!("{address}/{prefix}"), "dev", interface])
    }

    /// Adds a route to `destination` (a prefix or `default`) through a next hop.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn route(&self, destination: &str, via: Ipv4Addr) -> Result<(), LabError> {
        self.ip(&["route", "add", destination, "via", &via.to_string()])
    }

    /// Routes packets with this source address through `via`, by one rule and one table (number
    /// `table`).
    ///
    /// # Errors
    /// `ip` failed.
    pub fn source_route(
        &self,
        source: Ipv4Addr,
        via: Ipv4Addr,
        table: u32,
    ) -> Result<(), LabError> {
        let (source, via, table) = (source.to_string(), via.to_string(), table.to_string());
        self.ip(&["rule", "add", "from", &source, "lookup", &table])?;
        self.ip(&["route", "add", "default", "via", &via, "table", &table])
    }

    /// Makes a bridge of existing interfaces.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<(), LabError> {
        self.ip(&["link", "add", name, "type", "bridge"])?;
        for port in ports {
            self.ip(&["link", "set", port, "master", name])?;
        }
        self.ip(&["link", "set", name, "up"])
    }

    /// Limits what leaves an interface to `mbit` Mbit/s (10^6 bits, link-layer headers included)
    /// with a token bucket.
    ///
    /// The bucket holds a whole super-packet, so that the rate does not depend on the segmentation.
    /// The queue behind it holds [`QUEUE_MILLISECONDS`] at full rate, and at least [`QUEUE_BYTES`].
    ///
    /// # Errors
    /// `tc` failed.
    pub fn shape(&self, interface: &str, mbit: u32) -> Result<(), LabError> {
        let queue = (u64::from(mbit) * 125 * QUEUE_MILLISECONDS).max(QUEUE_BYTES);
        run_tool(
            Command::new("tc")
                .args(["-n", self.name(), "qdisc", "add", "dev", interface, "root", "tbf"])
                .args([
                    "rate",
                    &format!("{mbit}mbit"),
                    "burst",
                    &BURST_BYTES.to_string(),
                    "limit",
                    &queue.to_string(),
                ]),
        )
        .map(drop)
    }

    /// Writes a network sysctl, named by its path below `/proc/sys`, for example
    /// `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        self.enter(|| write_sysctl(path, value))?
    }

    /// Reads a network sysctl and trims the value.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_sysctl(&self, path: &str) -> Result<String, LabError> {
        self.read(&format!("/proc/sys/{path}"))
    }

    /// Returns the number of packets and frames of any kind that `interface` has received.
    ///
    /// # Errors
    /// The kernel's table cannot be read, or does not list the interface.
    pub fn received_frames(&self, interface: &str) -> Result<u64, LabError> {
        // /proc/net would show the namespace of the main thread.
        let table = self.read("/proc/thread-self/net/dev")?;
        let frames = table.lines().find_map(|line| {
            let (name, figures) = line.split_once(':')?;
            // Columns: bytes, packets, errors, ...
            (name.trim() == interface).then(|| figures.split_whitespace().nth(1)?.parse().ok())?
        });
        frames.ok_or_else(|| {
            LabError::system(format!("read the counters of {interface} in {}", self.name))(
                io::ErrorKind::NotFound.into(),
            )
        })
    }

    fn read(&self, path: &str) -> Result<String, LabError> {
        self.enter(|| fs::read_to_string(path))?
            .map(|text| text.trim().to_owned())
            .map_err(LabError::file("read", Path::new(path)))
    }

    /// Makes a command `ip netns exec NAME PROGRAM` without standard input, for
    /// [`Namespace::spawn`] or to run directly.
    ///
    /// The program gets a process group of its own: Ctrl-C on the terminal reaches the lab's owner,
    /// which ends the children in order.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program);
        own_group(&mut command);
        command
    }

    /// Starts a command made by [`Namespace::command`]. Writes its output to `LABEL.log` in the
    /// lab's directory.
    ///
    /// # Errors
    /// The log cannot be made, or the program cannot be started.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Child, LabError> {
        Child::spawn(self.owner.clone(), label, command)
    }
}

/// Depth of a shaped uplink's queue, in milliseconds at full rate.
pub const QUEUE_MILLISECONDS: u64 = 60;

/// Least depth of a shaped uplink's queue, in bytes.
pub const QUEUE_BYTES: u64 = 1 << 20;

/// Bucket of a shaped uplink, in bytes: a super-packet of 64 KiB with the headers of all its
/// segments, and a reserve.
pub const BURST_BYTES: u64 = 96 * 1024;

pub(super) fn write_sysctl(path: &str, value: &str) -> Result<(), LabError> {
    let path = Path::new("/proc/sys").join(path);
    fs::write(&path, value).map_err(LabError::file("write", &path))
}
