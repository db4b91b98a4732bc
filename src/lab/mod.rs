//! Network namespaces for the demo and the tests, and the programs that run in them.
//!
//! ```text
//! mod         the lab: owner of everything that follows
//! namespace   one namespace: addresses, routes, shaping, sysctls
//! error       the errors
//! child       processes that run in a namespace
//! registry    the journal, and the removal of what killed labs have left
//! topology    uplinks, boxes and servers built out of them (the pictures are there)
//! boxes       `natbox run` and its admin socket
//! http        a web server and its clients
//! load        downloads and their goodput
//! capture     packets on each uplink, counted
//! interrupt   Ctrl-C and SIGTERM as a return value
//! ```
//!
//! A [`Lab`] owns everything that it makes: namespaces (with their links, addresses, routes and
//! rules), child processes and one directory. [`Lab`], [`Namespace`] and [`Child`] are handles.
//! When the last handle is dropped, also during a panic, the lab removes everything. After a `kill
//! -9` the next lab of any process finds the rest through the journal (see [`registry`]) and
//! removes it. A lab touches nothing else.
//!
//! The only external program is iproute2 (`ip`, `tc`). Code of this program enters a namespace on a
//! thread of its own ([`Namespace::enter`]). A socket belongs to the namespace in which it was
//! made, whichever thread uses it.
//!
//! A namespace is named `PREFIX-PID-N-ROLE`, where N counts the labs of this process. Interfaces
//! are made inside the namespaces, never in the host's own.

pub mod boxes;
pub mod capture;
mod child;
mod error;
pub mod http;
pub mod interrupt;
pub mod load;
mod namespace;
mod registry;
pub mod topology;

pub use child::Child;
pub use error::LabError;
pub use namespace::{BURST_BYTES, Namespace, QUEUE_BYTES, QUEUE_MILLISECONDS};

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use namespace::write_sysctl;
use parking_lot::Mutex;
use registry::LabJournal;

/// Directory in which `ip netns add` shows namespaces.
const NETNS_DIRECTORY: &str = "/run/netns";

/// Checks what every lab needs: root, iproute2, and a TUN device. Changes nothing.
///
/// # Errors
/// [`LabError::NotRoot`], [`LabError::NoProgram`] or [`LabError::NoTun`]. Each names the remedy.
pub fn check_host() -> Result<(), LabError> {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(LabError::NotRoot { uid: uid.as_raw() });
    }
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| LabError::NoTun { source })?;
    for program in ["ip", "tc"] {
        run_tool(Command::new(program).arg("-V"))?;
    }
    Ok(())
}

/// One set of namespaces and the programs in them. A clone is a handle to the same set.
#[derive(Clone, Debug)]
pub struct Lab(Arc<Shared>);

/// The owner of the namespaces and of the directory.
///
/// ```text
/// Lab ─┐
/// Namespace ─┼─ Arc ─▶ Shared ── namespaces, directory, journal     dropped last: removes them
/// Child ─────┘                                                      (a Child ends its process first)
/// ```
#[derive(Debug)]
struct Shared {
    /// `PREFIX-PID-N`, the beginning of every name in this lab.
    stem: String,
    directory: PathBuf,
    journal: Mutex<LabJournal>,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// Starts an empty lab. First removes the remains of killed labs (see [`registry`]).
    ///
    /// `prefix` has letters and digits and shows the owner in `ip netns list`.
    ///
    /// # Errors
    /// Those of [`check_host`]; `/run/natbox` cannot be written.
    pub fn new(prefix: &str) -> Result<Lab, LabError> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        check_host()?;
        registry::sweep()?;
        // Relaxed: only the uniqueness of the value counts.
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{prefix}-{}-{number}", std::process::id());
        let journal = LabJournal::create(&stem)?;
        let directory = registry::directory_of(&stem);
        // From here on the journal lists everything that the lab makes.
        fs::create_dir(&directory).map_err(LabError::file("make", &directory))?;
        Ok(Lab(Arc::new(Shared {
            stem,
            directory,
            journal: Mutex::new(journal),
            namespaces: Mutex::new(Vec::new()),
        })))
    }

    /// Returns a directory for sockets, logs and configuration files. The lab removes the directory
    /// at its end.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Makes a namespace with `lo` up and IPv6 off.
    ///
    /// `role` is the end of the name and is unique within the lab.
    ///
    /// # Errors
    /// `ip netns add` failed.
    pub fn namespace(&self, role: &str) -> Result<Namespace, LabError> {
        let name = format!("{}-{role}", self.0.stem);
        // The entry precedes the namespace: a kill between the two leaves an entry without a
        // namespace, never a namespace without an entry.
        self.0.journal.lock().namespace(&name)?;
        self.0.namespaces.lock().push(name.clone());
        run_tool(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NETNS_DIRECTORY).join(&name);
        let file = File::open(&path).map_err(LabError::file("open", &path))?;
        let namespace = Namespace { lab: self.clone(), name: name.into(), file: Arc::new(file) };
        namespace.enter(|| {
            // Absent if the kernel has no IPv6.
            for scope in ["all", "default"] {
                let _ = write_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            // A namespace inherits IPv4 settings from the host. The lab sets the kernel's defaults
            // on every machine.
            for scope in ["all", "default"] {
                write_sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            }
            write_sysctl("net/ipv4/ip_forward", "0")?;
            // Every kernel has this algorithm and allows it outside its first namespace.
            write_sysctl("net/ipv4/tcp_congestion_control", "reno")?;
            Ok::<(), LabError>(())
        })??;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Joins two namespaces by a pair of interfaces, both up.
    ///
    /// The hardware addresses contain `index` (0 to 255, unique within the lab):
    /// `02:00:00:00:INDEX:01` on the first end, `:02` on the second (see [`hardware_address`]).
    ///
    /// # Errors
    /// `ip link` failed, for example because the namespace already has an interface of that name.
    pub fn veth(
        &self,
        index: u8,
        first: (&Namespace, &str),
        second: (&Namespace, &str),
    ) -> Result<(), LabError> {
        let (first_address, second_address) = (mac_text(index, 1), mac_text(index, 2));
        first.0.ip(&[
            "link",
            "add",
            first.1,
            "address",
            &first_address,
            "type",
            "veth", //
            "peer",
            "name",
            second.1,
            "address",
            &second_address,
            "netns",
            second.0.name(),
        ])?;
        first.0.ip(&["link", "set", first.1, "up"])?;
        second.0.ip(&["link", "set", second.1, "up"])
    }
}

/// Returns the hardware address of an end (1 or 2) of the [`Lab::veth`] pair with this index.
pub fn hardware_address(index: u8, end: u8) -> [u8; 6] {
    [2, 0, 0, 0, index, end]
}

fn mac_text(index: u8, end: u8) -> String {
    hardware_address(index, end).map(|byte| format!("{byte:02x}")).join(":")
}

impl Drop for Shared {
    fn drop(&mut self) {
        for name in self.namespaces.get_mut().drain(..).rev() {
            registry::delete_namespace(&name);
        }
        let _ = fs::remove_dir_all(&self.directory);
        // The journal is removed last: as long as anything else remains, the journal lists it.
        self.journal.get_mut().remove();
    }
}

fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.stdin(Stdio::null()).process_group(0);
}

/// Runs an iproute2 command to its end.
fn run_tool(command: &mut Command) -> Result<Output, LabError> {
    own_group(command);
    let output = command.output().map_err(|source| LabError::NoProgram {
        program: command.get_program().to_string_lossy().into_owned(),
        package: "iproute2",
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(LabError::Command {
        command: command_line(command),
        status: output.status.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Formats a command as a shell would take it, without quoting: the lab's arguments have no spaces.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
