//! The states of a session, as pure functions of what was seen.

pub(crate) mod direction;
pub(crate) mod state;
pub(crate) mod tcp_state;
pub(crate) mod tcp_window;
