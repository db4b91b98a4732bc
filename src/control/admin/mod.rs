//! The admin socket: one JSON object per line in, one per line out.
//!
//! Requests are `{"command": "status"}`; an answer is what was asked for, or `{"error": "..."}`. The socket appears
//! under its name only when the box is ready, and only root and its group may connect.

mod client;
mod server;

pub use client::{ClientError, find, follow, request};
pub(super) use server::Server;
pub use server::SocketError;

use serde::{Deserialize, Serialize};

use super::SessionCursor;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Asks for [`super::Status`].
    Status,
    /// Asks for a [`super::SessionPage`].
    Sessions {
        /// Where it begins.
        #[serde(default)]
        from: SessionCursor,
    },
    /// Asks for [`super::EffectiveConfig`].
    EffectiveConfig,
    /// Asks for what happened and what will: an answer of many lines, each a [`super::Event`], after which the connection ends.
    Events {
        /// Whether to go on with what will happen, until the box ends.
        #[serde(default)]
        follow: bool,
    },
    /// Has the configuration read again; answered with [`super::Reloaded`].
    Reload,
}

/// The answer to a request that could not be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, for a person.
    pub error: String,
}

/// Longest request line, in bytes.
const MAX_REQUEST: u64 = 4096;
