//! The configuration of a translator as values: limits that are fixed, and rules that a reload may
//! swap.

pub(crate) mod forwards;
pub(crate) mod initiator;
pub(crate) mod limits;
pub(crate) mod rules;
