//! A filter as a tree of conditions.

use std::fmt;

use super::condition::Condition;
use super::subject::Subject;

/// A filter as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilterExpression {
    /// Every one matches. An empty list matches everything.
    All(Vec<FilterExpression>),
    /// At least one matches.
    Any(Vec<FilterExpression>),
    /// It does not match.
    Not(Box<FilterExpression>),
    /// One condition.
    Is(Condition),
}

impl FilterExpression {
    /// Reports whether a subject matches.
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(subject)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(subject)),
            Self::Not(filter) => !filter.matches(subject),
            Self::Is(condition) => condition.matches(subject),
        }
    }

    /// Reports whether the filter has no condition, so that it matches everything.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::All(filters) if filters.is_empty())
    }
}

impl Default for FilterExpression {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// Writes the filter in its own language.
impl fmt::Display for FilterExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (filters, between) = match self {
            Self::Is(condition) => return condition.fmt(formatter),
            Self::Not(filter) if matches!(**filter, Self::Is(_)) => {
                return write!(formatter, "not {filter}");
            }
            Self::Not(filter) => return write!(formatter, "not ({filter})"),
            Self::All(filters) => (filters, " "),
            Self::Any(filters) => (filters, " or "),
        };
        for (number, filter) in filters.iter().enumerate() {
            let before = if number == 0 { "" } else { between };
            match filter {
                Self::Is(_) | Self::Not(_) => write!(formatter, "{before}{filter}")?,
                Self::All(_) | Self::Any(_) => write!(formatter, "{before}({filter})")?,
            }
        }
        Ok(())
    }
}
