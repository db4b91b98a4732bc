//! The types of values: each reads, prints and describes its values.

mod constraint;
pub(super) mod domain;
mod lists;
pub(super) mod names;
pub(super) mod network;
mod numbers;
mod one_or_more;
mod scalar;
mod words;

pub(super) use constraint::{any_of, integer, pattern, truth_value, words};
pub(super) use lists::{Items, list, some};
pub(super) use numbers::{DurationText, count, duration, number, percent, whole_seconds};
pub(super) use one_or_more::one_or_more;
pub(super) use scalar::{Format, Scalar, shown};
pub(super) use words::{boolean, config_enum, config_words, word};

pub(crate) use words::ConfigEnum;
