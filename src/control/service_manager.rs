//! Tells the service manager the state of the instance (`sd_notify(3)`).
//!
//! natbox reports that it is ready as soon as its configuration is good, even if it waits for its
//! interfaces. Otherwise a unit that starts after natbox would wait as long as an interface is
//! missing, and the service manager would end natbox after `TimeoutStartSec`. The status text says
//! whether natbox waits.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::api::EventKind;

/// The service manager that started this process.
pub(super) struct ServiceManager {
    /// None: no service manager asked for reports.
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl ServiceManager {
    /// Finds the service manager in the environment.
    pub(super) fn from_environment() -> Self {
        let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let connect = |name: std::ffi::OsString| -> io::Result<_> {
            Ok((UnixDatagram::unbound()?, address(&name)?))
        };
        let warn = |error: &io::Error| tracing::warn!(%error, "{VARIABLE}: not usable");
        let socket = name.and_then(|name| connect(name).inspect_err(warn).ok());
        Self { socket }
    }

    /// Reports an event that changes the state of the instance.
    pub(super) fn report(&self, kind: &EventKind) {
        if let Some((socket, address)) = &self.socket
            && let Some(message) = message(kind)
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager does not take a report");
        }
    }
}

/// Returns the address of a socket: a path, or an abstract name after `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

/// Returns the report of an event; None: the event does not change the state of the instance.
#[expect(clippy::wildcard_enum_match_arm, reason = "a new event needs no report")]
fn message(kind: &EventKind) -> Option<String> {
    match kind {
        EventKind::Waiting { .. } => Some(format!("READY=1\nSTATUS={kind}")),
        EventKind::Ready { .. } => Some("READY=1\nSTATUS=running".to_owned()),
        EventKind::Stopping { .. } => Some("STOPPING=1\nSTATUS=stopping".to_owned()),
        _ => None,
    }
}

/// Environment variable with the name of the service manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_instance_is_ready_for_the_service_manager() {
        let missing = vec!["inside.interface: interface lan0 is down".to_owned()];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        for name in [path.as_os_str(), OsStr::new("@natbox-test-of-reports")] {
            let manager = UnixDatagram::bind_addr(&address(name).unwrap()).unwrap();
            let socket = Some((UnixDatagram::unbound().unwrap(), address(name).unwrap()));
            let natbox = ServiceManager { socket };
            natbox.report(&EventKind::TunUp { tun: "nb0".to_owned() });
            natbox.report(&EventKind::Waiting { missing: missing.clone() });
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).unwrap();
            assert_eq!(
                buffer[..length],
                *b"READY=1\nSTATUS=waiting: inside.interface: interface lan0 is down"
            );
        }
    }
}
