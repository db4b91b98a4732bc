//! The names that exist where a filter is used.

use super::condition::{Condition, Property};
use super::expression::FilterExpression;
use crate::nearest::advise;

/// The names that a filter may contain, and whether the start of sessions is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownNames<'n> {
    /// Names of the uplinks.
    pub(crate) uplinks: Vec<&'n str>,
    /// Names of the forwards.
    pub(crate) forwards: Vec<&'n str>,
    /// Names of the states.
    pub(crate) states: &'n [&'n str],
    /// Names of the kinds of sessions.
    pub(crate) origins: &'n [&'n str],
    /// True: the age of a session is known.
    pub(crate) has_ages: bool,
}

/// Reason why a filter can match nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownName {
    /// Nothing has the name.
    #[error("filter: found {property} `{name}`, which does not exist; {advice}")]
    Missing {
        /// Word of the property.
        property: &'static str,
        /// The name.
        name: String,
        /// The nearest name, or those that exist.
        advice: String,
    },
    /// Nothing has a name, because none is configured.
    #[error("filter: found {property} `{name}`, but the configuration has no {property}")]
    None {
        /// Word of the property.
        property: &'static str,
        /// The name.
        name: String,
    },
    /// The instance does not note when sessions begin.
    #[error(
        "filter: found `age`, but this instance does not note when sessions begin; set \
         limits.accounting to true and restart, or use `idle`"
    )]
    NoAges,
}

impl KnownNames<'_> {
    /// Checks every name and property of a filter.
    ///
    /// # Errors
    /// The first name that does not exist.
    pub(crate) fn check(&self, filter: &FilterExpression) -> Result<(), UnknownName> {
        match filter {
            FilterExpression::All(filters) | FilterExpression::Any(filters) => {
                filters.iter().try_for_each(|filter| self.check(filter))
            }
            FilterExpression::Not(filter) => self.check(filter),
            FilterExpression::Is(Condition::Name(property, name)) => {
                self.check_name(*property, name)
            }
            FilterExpression::Is(Condition::Time(Property::Age, ..)) if !self.has_ages => {
                Err(UnknownName::NoAges)
            }
            FilterExpression::Is(_) => Ok(()),
        }
    }

    fn check_name(&self, property: Property, name: &str) -> Result<(), UnknownName> {
        let known: &[&str] = match property {
            Property::Uplink => &self.uplinks,
            Property::Forward => &self.forwards,
            Property::State => self.states,
            Property::Origin => self.origins,
            Property::Idle | Property::Age | Property::Expires => return Ok(()),
        };
        let (property, found) = (property.word(), name.to_owned());
        match known {
            _ if known.contains(&name) => Ok(()),
            [] => Err(UnknownName::None { property, name: found }),
            _ => {
                let advice = advise(name, known.iter().copied());
                Err(UnknownName::Missing { property, name: found, advice })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &str) -> Result<(), String> {
        let known = KnownNames {
            uplinks: vec!["isp1", "isp2"],
            forwards: vec![],
            states: &["established", "syn"],
            origins: &["forward"],
            has_ages: false,
        };
        known.check(&filter.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_that_do_not_exist_are_answered_with_the_nearest() {
        assert_eq!(check("tcp uplink isp1 (state syn or not origin forward) idle>5m"), Ok(()));
        let error = check("tcp or not (uplink ips1)").unwrap_err();
        assert_eq!(
            error,
            "filter: found uplink `ips1`, which does not exist; did you mean `isp1`?"
        );
        let error = check("state x").unwrap_err();
        assert!(error.ends_with("choose one of `established`, `syn`"), "{error}");
        let error = check("forward web").unwrap_err();
        assert!(error.ends_with("but the configuration has no forward"), "{error}");
        assert!(check("age<5m").unwrap_err().contains("limits.accounting"));
    }
}
