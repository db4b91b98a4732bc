//! The plan of one server, and its form for people.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

/// The settings of one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerPlan {
    /// Names of the forwards to the server.
    pub forwards: Vec<String>,
    /// The server's addresses, each with its box.
    pub addresses: Vec<ServerAddress>,
    /// True when the server needs routing by source address; false when a default route is enough.
    pub policy_routing: bool,
    /// Remarks, as sentences.
    pub notes: Vec<String>,
    /// Commands for a POSIX shell. The user has to set the variables that the commands do not set.
    /// The shell names a missing variable.
    pub commands: Vec<String>,
    /// The same as drop-ins of systemd-networkd, one per interface.
    pub networkd: Vec<Snippet>,
    /// The same for netplan.
    pub netplan: String,
}

/// One address of a server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The private network of the address.
    pub network: Ipv4Net,
    /// Name of the box that forwards to the address.
    pub through: String,
}

/// The content of one file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snippet {
    /// Interface, or the variable in its place.
    pub interface: String,
    /// Content.
    pub text: String,
}

impl ServerPlan {
    /// Appends the plan for people.
    pub(super) fn write(&self, text: &mut String) {
        let addresses: Vec<String> =
            self.addresses.iter().map(|entry| entry.address.to_string()).collect();
        let _ = writeln!(
            text,
            "# ==== server of {} ({}), run as root ====",
            self.forwards.join(", "),
            addresses.join(", ")
        );
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "# {note}");
        });
        text.push_str("set -e\n");
        self.commands.iter().for_each(|command| {
            let _ = writeln!(text, "{command}");
        });
        for Snippet { interface, text: content } in &self.networkd {
            let _ = writeln!(
                text,
                "\n# ---- the same for systemd-networkd: natbox.conf in the .network.d directory of \
                 {interface} ----\n{}",
                content.trim_end()
            );
        }
        let _ = writeln!(
            text,
            "\n# ---- the same for netplan: /etc/netplan/90-natbox.yaml ----\n{}",
            self.netplan
        );
    }
}
