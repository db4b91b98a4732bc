//! Network namespaces for the demo and the tests, and the programs that run in them.
//!
//! ```text
//! handle      [`Lab`]: makes namespaces and links
//! owner       what a lab has made, and its removal
//! namespace   one namespace: addresses, routes, shaping, sysctls
//! error       the errors
//! tool        iproute2 commands
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
mod handle;
pub mod http;
pub mod interrupt;
pub mod load;
mod namespace;
mod owner;
mod registry;
mod tool;
pub mod topology;

pub use child::Child;
pub use error::LabError;
pub use handle::{Lab, check_host, hardware_address};
pub use namespace::{BURST_BYTES, Namespace, QUEUE_BYTES, QUEUE_MILLISECONDS};
pub use tool::command_line;
