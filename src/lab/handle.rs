//! A lab and the namespaces and links that it makes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::error::LabError;
use super::namespace::{Namespace, write_sysctl};
use super::owner::LabOwner;
use super::registry::{self, LabJournal, NETNS_DIRECTORY};
use super::tool::run_tool;

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
pub struct Lab(Arc<LabOwner>);

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
        Ok(Lab(Arc::new(LabOwner {
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
        let namespace =
            Namespace { owner: self.0.clone(), name: name.into(), file: Arc::new(file) };
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
