//! The state of a session, as pure functions of its packets.

pub(crate) mod direction;
pub(crate) mod state;
pub(crate) mod tcp_state;
pub(crate) mod tcp_window;
