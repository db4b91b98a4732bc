//! An instance from start to stop: the wait for its interfaces, everything that needs privileges,
//! then the control thread.

use std::path::Path;
use std::rc::Rc;

use super::admin::AdminServer;
use super::admin_socket::AdminSocket;
use super::dns;
use super::error::RunError;
use super::events::Events;
use super::firewall::StartingLister;
use super::health::RawSockets;
use super::instance::Instance;
use super::kept_sessions::StateFiles;
use super::needed_files::needed_files;
use super::sandbox::{self, Sandbox};
use super::signals::SignalStreams;
use super::start::{self, Entrance, Privileged};
use super::wait;
use super::waiting::WaitingInstance;
use crate::config::Config;
use crate::host;
use crate::io::ArpSocket;

/// Runs an instance until a signal ends it. `path`: the file that a reload reads again.
///
/// # Errors
/// See [`RunError`]. The host has been restored by then.
pub(crate) fn run(path: &Path, config: &Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // The threads for work that takes long.
        .on_thread_start(sandbox::drop_capabilities)
        .build()
        .map_err(|source| RunError::System { doing: "starting the control thread", source })?;
    let instance = wait_and_run(path, config);
    tokio::task::LocalSet::new().block_on(&runtime, instance)
}

async fn wait_and_run(path: &Path, config: &Config) -> Result<(), RunError> {
    // A wrong configuration ends natbox at once, even if natbox would wait.
    dns::check(config)?;
    // Before anything is changed: a signal during the start must lead to the same orderly stop.
    let mut signals = SignalStreams::new()?;
    let socket = AdminSocket::bind(&config.admin)?;
    let events = Rc::new(Events::new());
    let waiting = Rc::new(WaitingInstance::new(path, config, Rc::clone(&events)));
    let instance = Rc::new(Instance::new(Rc::clone(&waiting), Rc::clone(&events)));
    let mut admin = AdminServer::new(socket, Rc::clone(&instance));
    let Some(config) = wait::until_interfaces_are_up(&waiting, &mut signals, &mut admin).await?
    else {
        return Ok(());
    };
    // Before privileges are dropped: raw sockets, port 53, the file of the secret, the process that
    // runs the hook, the process that lists the rules of the firewall.
    let raw =
        RawSockets::open(&config).map_err(|(key, source)| RunError::RawSocket { key, source })?;
    let lister = StartingLister::start();
    let dns = dns::prepare(&config)?;
    let mut kept = StateFiles::open(&config)?;
    let inherited = kept.as_mut().and_then(|kept| ArpSocket::among(kept.inherited()));
    let arp = inherited.or_else(arp_socket);
    if config.host.manage {
        host::make_journal_directory()?;
    }
    // Of the other threads, one writes the log without privileges, and one starts the lister and
    // ends.
    let files = needed_files(path, &config);
    let sandbox = Sandbox::enter(files.clone()).map_err(RunError::Sandbox)?;
    let privileged = Privileged { raw, arp, dns, lister, kept, sandbox, files };
    let entrance = Entrance { signals, admin, waiting, instance, events };
    start::run_instance(path, &config, privileged, entrance).await
}

/// Opens the socket that announces addresses. Without it natbox runs, and a router learns a new
/// hardware address when its entry expires.
fn arp_socket() -> Option<ArpSocket> {
    let opened = ArpSocket::open();
    let warn = |error: &std::io::Error| {
        tracing::warn!(
            %error,
            "addresses are not announced by ARP; start natbox with CAP_NET_RAW, and with AF_PACKET \
             in RestrictAddressFamilies of its unit"
        );
    };
    opened.inspect_err(warn).ok()
}
