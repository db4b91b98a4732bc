//! The commands that look at a running box and change it, with real traffic.

mod confirm;
mod drops;
mod explain;
mod kill;
mod large;
mod reload;
mod session_events;
mod sessions;
mod site;
mod top;
mod trace;
