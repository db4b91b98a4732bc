//! What fuzz targets feed with hostile bytes behind the public API, without sockets and devices.
//!
//! The feature `fuzzing` adds this module, and no release has it. The targets in `fuzz/` reach
//! packets, sessions and the admin protocol by the public API. These inputs have no public function
//! of their own:
//!
//! | item                                 | input                                            |
//! |--------------------------------------|--------------------------------------------------|
//! | [`WireQueue`]                        | virtio headers and packets, as a worker reads them |
//! | [`AcceptedConfig`]                   | the text of a configuration file                 |
//! | [`admin_inputs`]                     | the bytes of a connection to the admin socket    |
//! | [`answer_query`]                     | a message to the name server                     |
//! | [`UpdateExchange`]                   | the answer of another name server to an update   |
//!
//! Each item calls the code of the running process and adds nothing to it.

pub use crate::config::fuzzing::AcceptedConfig;
pub use crate::control::fuzzing::{AdminInput, admin_inputs};
pub use crate::dns::fuzzing::{QueryTransport, UpdateExchange, answer_query};
pub use crate::engine::fuzzing::{SentPackets, WireQueue};
