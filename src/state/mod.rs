//! The files in which the sessions of an instance outlive its process (`state.keep`).
//!
//! ```text
//!   DIRECTORY/NAME/        of root alone: the header has the key of the session hash
//!     lock                 held by the process that uses the files
//!     header.json          what the files hold, and under which boot, layout and configuration
//!     records, index       the session table (nat::SessionFiles)
//!     accounts             packets and bytes of each session
//!     keeper               socket of the process that holds the TUN's queues open
//!     old.*                files whose sessions are being imported
//! ```
//!
//! The directory lies on a tmpfs, so the files end with the boot. natbox writes a new header and
//! renames it, so a killed process leaves the old header or the new one. If the files are of
//! another configuration or of another layout of records, their sessions are imported into new
//! files. If natbox cannot read them, it begins with empty files and one sentence that says why.

mod descriptors;
mod directory;
mod header;
mod import;
mod keeper;
mod preview;
mod tmpfs;

pub(crate) use descriptors::{DESCRIPTORS, DescriptorStore};
pub(crate) use directory::{Opened, SessionState, StateError, remove};
pub(crate) use header::StateRequirements;
pub(crate) use keeper::{KEEPER_COMMAND, keep_descriptors};
pub(crate) use preview::{Preview, preview};
