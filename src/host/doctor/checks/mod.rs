//! Evaluates facts: each check makes findings of plain data and asks nothing.

pub(crate) mod box_checks;
pub(crate) mod box_firewall;
pub(crate) mod conntrack;
pub(crate) mod server_checks;
