//! `host`, `admin`, `state` and `log`: the process and its host.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::schema::{Unresolved, ValueTypeExt as _, absent, section};
use crate::config::types::{boolean, config_enum, names, network, number, word};

section! {
    /// The host that natbox runs on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Host {
        /// Whether natbox sets routes, rules, sysctls and proxy ARP on the host, and removes them
        /// on shutdown. With `false` natbox does not announce its addresses by ARP either.
        pub manage: bool = boolean().default(true).needs_restart(),
        /// Route of the host's own packets to the outside: those of its resolver, its updates, its
        /// clock and its VPN.
        pub default_route: HostDefaultRoute = word().default(HostDefaultRoute::Leave),
        /// Whether natbox drops packets with private addresses on the interfaces of the uplinks:
        /// those that leave with a private source, and those that arrive for a private destination.
        /// The addresses and networks of the interface, external addresses and `no_nat` pass. An
        /// external address leaves by no other interface than that of its uplink. natbox also drops
        /// packets that leave with a private IPv6 source of another network than the interface's.
        /// Needs Linux 5.16. With `manage: false` natbox drops none.
        pub block_private: bool = boolean().default(true),
    }
}

config_enum! {
    /// Route of the host's own packets to the outside.
    pub(crate) enum HostDefaultRoute {
        /// The host's own default route. natbox does not touch it.
        Leave = "leave",
        /// Through natbox, as for an inside host: over a healthy uplink of the lowest tier, by
        /// weight, with an external address of the uplink. The host's own default route stays, and
        /// packets use it again when natbox stops.
        Follow = "follow",
    }
}

impl Default for Host {
    fn default() -> Self {
        absent()
    }
}

/// Admin interfaces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Admin {
    /// Unix socket.
    pub socket: PathBuf,
    /// Name or number of the group that may read over the socket, if any.
    pub group: Option<String>,
    /// HTTP listener, if any.
    pub http: Option<SocketAddr>,
}

section! {
    /// Admin interfaces.
    #[derive(Clone, Debug)]
    pub(in crate::config) struct FileAdmin {
        /// Unix socket that `natbox status` and other commands use.
        pub socket: Unresolved<PathBuf> = names::socket_path()
            .optional("`/run/natbox/NAME.sock`, with the name of the instance")
            .example("/run/natbox/reference.sock"),
        /// Group whose members may read over the socket: `natbox status`, `sessions` and `events`.
        /// Only root may change the instance. The name of a group in `/etc/group`, or a
        /// number in quotes.
        pub group: Unresolved<String> = names::group()
            .optional("no group: only root may use the socket")
            .needs_restart()
            .example("adm"),
        /// HTTP listener. This version does not act on it yet.
        pub http: Unresolved<SocketAddr> = network::listener()
            .optional("no listener")
            .example("127.0.0.1:9640"),
    }
}

impl Admin {
    /// Returns the socket of a box of this name if the file gives none.
    pub(crate) fn default_socket(name: &str) -> PathBuf {
        PathBuf::from(format!("/run/natbox/{name}.sock"))
    }
}

impl From<&Admin> for FileAdmin {
    fn from(admin: &Admin) -> Self {
        Self {
            socket: Unresolved::from_option(Some(admin.socket.clone())),
            group: Unresolved::from_option(admin.group.clone()),
            http: Unresolved::from_option(admin.http),
        }
    }
}

section! {
    /// Session state.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Persistence {
        /// Whether sessions outlive the process: a crash, a restart, an upgrade. They end with the
        /// boot of the machine.
        pub keep: bool = boolean().default(false).needs_restart(),
        /// Directory of the session files, of root alone, on a tmpfs. Each box has a directory with
        /// its name there.
        pub directory: PathBuf =
            names::absolute_path().default(PathBuf::from("/run/natbox/state")).needs_restart(),
        /// Packets that wait in each queue of the TUN device while no process runs, with `keep`.
        pub hold: u32 = number(16..=131_072).default(8192),
    }
}

impl Default for Persistence {
    fn default() -> Self {
        absent()
    }
}

section! {
    /// Log output.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Log {
        /// Least severe level to print.
        pub level: LogLevel = word().default(LogLevel::Info),
        /// Form of the lines.
        pub format: LogFormat = word().default(LogFormat::Text),
        /// Whether natbox logs the beginning and the end of each mapping, without destinations (RFC
        /// 6888 section 4).
        pub mappings: bool = boolean().default(false),
    }
}

impl Default for Log {
    fn default() -> Self {
        absent()
    }
}

config_enum! {
    /// Log levels.
    pub(crate) enum LogLevel {
        /// Errors only.
        Error = "error",
        /// Conditions that a person should look at.
        Warn = "warn",
        /// Start, stop, and the state of the box.
        Info = "info",
        /// Details, with client addresses.
        Debug = "debug",
        /// Everything. Debug builds log single packets.
        Trace = "trace",
    }
}

config_enum! {
    /// Log formats.
    pub(crate) enum LogFormat {
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
