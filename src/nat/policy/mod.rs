//! The rules of a translator as values: sizes and behaviour that are fixed, and rules that a reload may swap.

pub(crate) mod forwards;
pub(crate) mod limits;
pub(crate) mod port_range;
pub(crate) mod rules;
