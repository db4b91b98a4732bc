//! Network namespaces for the demo and the tests, and what runs in them.
//!
//! ```text
//! mod         namespaces and the links between them
//! child       processes that run in a namespace
//! registry    what killed labs have left, found and removed
//! topology    uplinks, boxes and servers built out of them (the pictures are there)
//! boxes       `natbox run` and its admin socket
//! http        a web server and its clients
//! load        downloads and their goodput
//! capture     what leaves by which uplink
//! interrupt   Ctrl-C and SIGTERM as a return value
//! ```
//!
//! A [`Lab`] owns everything that it makes: namespaces (with the links, addresses, routes and rules in them), child
//! processes, one directory. All of it goes when the last handle goes ([`Lab`], [`Namespace`] and [`Child`] are
//! handles), also while a panic unwinds. What a `kill -9` leaves behind is found through the journal (see
//! [`registry`]) and removed when the next lab starts, whoever starts it. Nothing else is ever touched.
//!
//! The one outside program is iproute2 (`ip`, `tc`). Code of this program runs inside a namespace on a thread that
//! has moved there ([`Namespace::enter`]): a socket belongs to the namespace in which it was made, whichever thread
//! uses it later.
//!
//! Names: `PREFIX-PID-N-ROLE` for a namespace, where N counts the labs of this process. Interfaces are made inside
//! the namespaces, never in the host's own.

pub mod boxes;
pub mod capture;
mod child;
pub mod http;
pub mod interrupt;
pub mod load;
mod registry;
pub mod topology;

pub use child::Child;

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use registry::Journal;

/// Where namespaces show up once `ip netns add` has made them.
const NETNS_DIRECTORY: &str = "/run/netns";

/// What can go wrong while building a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process is not root.
    #[error("network namespaces need root: run this as root (found user id {uid})")]
    NotRoot {
        /// Effective user id.
        uid: u32,
    },
    /// The TUN device is missing.
    #[error(
        "/dev/net/tun cannot be opened: load the `tun` module (modprobe tun), or give the container the device"
    )]
    NoTun {
        /// Why.
        source: io::Error,
    },
    /// A program is missing.
    #[error("`{program}` cannot be started: install {package}")]
    NoProgram {
        /// Name of the program.
        program: String,
        /// Where it comes from.
        package: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A command ended with an error.
    #[error("`{command}` failed ({status}): {message}")]
    Command {
        /// The whole command line.
        command: String,
        /// Exit status.
        status: String,
        /// What it printed on standard error.
        message: String,
    },
    /// A file could not be read, written or made.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Verb: read, write, make.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call that has no file or command to name.
    #[error("cannot {action}")]
    System {
        /// Verb and object.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl LabError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::File { action, path: path.to_owned(), source }
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::System { action: action.into(), source }
    }
}

/// Checks what every lab needs: root, iproute2, and a TUN device for the boxes. Changes nothing.
///
/// # Errors
/// [`LabError::NotRoot`], [`LabError::NoProgram`] or [`LabError::NoTun`], each naming the remedy.
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

/// One set of namespaces with all that runs in them; a cheap handle.
#[derive(Clone, Debug)]
pub struct Lab(Arc<Shared>);

/// Owner of the namespaces and of the directory.
///
/// ```text
/// Lab ─┐
/// Namespace ─┼─ Arc ─▶ Shared ── namespaces, directory, journal     dropped last: removes them
/// Child ─────┘                                                      (a Child ends its process first)
/// ```
#[derive(Debug)]
struct Shared {
    /// `PREFIX-PID-N`: what every name of this lab begins with.
    stem: String,
    directory: PathBuf,
    journal: Mutex<Journal>,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// Starts an empty lab after removing what killed predecessors have left (see [`registry`]).
    ///
    /// `prefix`: letters and digits; says in `ip netns list` whose it is.
    ///
    /// # Errors
    /// Those of [`check_host`]; `/run/natbox` cannot be written.
    pub fn new(prefix: &str) -> Result<Lab, LabError> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        check_host()?;
        registry::sweep()?;
        // Relaxed: only the value's uniqueness counts.
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{prefix}-{}-{number}", std::process::id());
        let journal = Journal::create(&stem)?;
        let directory = registry::directory_of(&stem);
        // The journal exists: from here on everything is found again.
        fs::create_dir(&directory).map_err(LabError::file("make", &directory))?;
        Ok(Lab(Arc::new(Shared {
            stem,
            directory,
            journal: Mutex::new(journal),
            namespaces: Mutex::new(Vec::new()),
        })))
    }

    /// A directory for sockets, logs and configuration files; removed with the lab.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Makes a namespace with `lo` up and IPv6 off.
    ///
    /// `role` ends its name and is unique within the lab.
    ///
    /// # Errors
    /// `ip netns add` failed.
    pub fn namespace(&self, role: &str) -> Result<Namespace, LabError> {
        let name = format!("{}-{role}", self.0.stem);
        // Noted before it is made: a kill between the two costs an entry for nothing, never a leak.
        self.0.journal.lock().namespace(&name)?;
        self.0.namespaces.lock().push(name.clone());
        run_tool(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NETNS_DIRECTORY).join(&name);
        let file = File::open(&path).map_err(LabError::file("open", &path))?;
        let namespace = Namespace { lab: self.clone(), name: name.into(), file: Arc::new(file) };
        namespace.enter(|| {
            // Absent where the kernel has no IPv6.
            for scope in ["all", "default"] {
                let _ = write_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            // IPv4 settings are inherited from the host; a lab starts from the kernel's defaults on every machine.
            for scope in ["all", "default"] {
                write_sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            }
            write_sysctl("net/ipv4/ip_forward", "0")?;
            // The one that every kernel has and allows outside its first namespace.
            write_sysctl("net/ipv4/tcp_congestion_control", "reno")?;
            Ok::<(), LabError>(())
        })??;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Joins two namespaces by a pair of interfaces, both up.
    ///
    /// Hardware addresses are derived from `index` (0 to 255, unique within the lab): `02:00:00:00:INDEX:01` on the
    /// first end, `:02` on the second (see [`hardware_address`]).
    ///
    /// # Errors
    /// `ip link` failed, for example because the name is taken in that namespace.
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

/// Hardware address of an end (1 or 2) of the [`Lab::veth`] pair with this index.
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
        // Last: while anything is left, the journal says so.
        self.journal.get_mut().remove();
    }
}

/// A network namespace; a cheap handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    lab: Lab,
    name: Arc<str>,
    file: Arc<File>,
}

impl Namespace {
    /// Name as in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    ///
    /// # Errors
    /// The thread could not be made or moved. A panic of `work` goes on in the caller.
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
    /// [`LabError::Command`] with what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), LabError> {
        run_tool(Command::new("ip").args(["-n", self.name()]).args(arguments)).map(drop)
    }

    /// What `ip -n NAME ARGUMENTS` prints.
    ///
    /// # Errors
    /// [`LabError::Command`] with what `ip` said.
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

    /// Sends what leaves with this source address through `via`: one rule and one table (number `table`).
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

    /// Makes a bridge out of interfaces that exist already.
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

    /// Limits what leaves by an interface to `mbit` Mbit/s (10^6 bits, link-layer headers counted) with a token
    /// bucket.
    ///
    /// The bucket holds a whole super-packet, so the rate does not depend on how packets are segmented; the queue
    /// behind it holds [`QUEUE_MILLISECONDS`] at full rate, and [`QUEUE_BYTES`] at least.
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

    /// Writes a network sysctl, named by its path below `/proc/sys`, for example `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        self.enter(|| write_sysctl(path, value))?
    }

    /// Reads a network sysctl, trimmed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_sysctl(&self, path: &str) -> Result<String, LabError> {
        self.read(&format!("/proc/sys/{path}"))
    }

    /// Packets and frames of any kind that `interface` has received.
    ///
    /// # Errors
    /// The kernel's table cannot be read, or the interface is not in it.
    pub fn received_frames(&self, interface: &str) -> Result<u64, LabError> {
        // Not /proc/net, which is the main thread's view.
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

    /// `ip netns exec NAME PROGRAM`, for [`Namespace::spawn`] or to be run as it is; standard input is empty.
    ///
    /// The program is in a process group of its own: Ctrl-C on the terminal is for the lab's owner, who ends the
    /// children in order.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name()]).arg(program);
        own_group(&mut command);
        command
    }

    /// Starts a command made by [`Namespace::command`]; its output goes to `LABEL.log` in the lab's directory.
    ///
    /// # Errors
    /// The log cannot be made or the program not be started.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Child, LabError> {
        Child::spawn(self.lab.clone(), label, command)
    }
}

/// Depth of a shaped line's queue, in milliseconds at full rate.
pub const QUEUE_MILLISECONDS: u64 = 60;

/// Least depth of a shaped line's queue.
pub const QUEUE_BYTES: u64 = 1 << 20;

/// Bucket of a shaped line: a super-packet of 64 KiB with the headers of all its segments, and some.
pub const BURST_BYTES: u64 = 96 * 1024;

fn write_sysctl(path: &str, value: &str) -> Result<(), LabError> {
    let path = Path::new("/proc/sys").join(path);
    fs::write(&path, value).map_err(LabError::file("write", &path))
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

/// A command as one would type it (no quoting: the lab's arguments have no spaces).
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
