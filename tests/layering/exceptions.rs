//! The places that do not follow a rule yet. The lists only shrink: a check fails when an entry is
//! not needed.

use crate::Family;

/// "from > to", or the path of a file that is in no folder of the table yet.
pub(crate) const UPWARD_IMPORTS: &[&str] = &[];

/// The files of a circle, sorted.
pub(crate) const CIRCLES: &[&str] = &[];

/// Files with too many lines.
pub(crate) const LONG_FILES: &[&str] = &[];

/// File and function.
pub(crate) const LONG_FUNCTIONS: &[&str] = &[];

/// File and the function around the `select!`.
pub(crate) const WIDE_SELECTS: &[&str] = &[];

/// Type and the top-level modules that define one of this name.
pub(crate) const SHARED_NAMES: &[&str] = &[];

pub(crate) const FAMILIES: &[Family] = &[
    Family {
        idea: "a value of the configuration file, and the same value in the translator's terms",
        modules: &["config", "nat"],
        names: &["Forward", "Limits", "NoNatRule", "OutboundRule", "Timeouts", "Uplink"],
    },
    Family {
        idea: "the present state of the uplinks: all of it, and what the packet path needs of it",
        modules: &["nat", "uplinks"],
        names: &["UplinkStates"],
    },
    Family { idea: "counters of a subsystem", modules: &["dns", "nat"], names: &["Counters"] },
];
