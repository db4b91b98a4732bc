//! Prints the steps, and the settings of servers, as commands.

pub(crate) mod plan;
pub(crate) mod server_plan;

pub use plan::{BoxPlan, Plan, render as plan};
