//! The configuration written back in the file's own schema, every value present.

use super::file::File;
use super::model::Config;
use super::schema::Section as _;

/// Returns the effective configuration as a file; [`super::parse`] reads it back to an equal one.
pub(crate) fn to_yaml(config: &Config) -> String {
    File::from(config).emit().to_yaml()
}

/// Returns the effective configuration as JSON on several lines. JSON is YAML, so [`super::parse`]
/// reads it back.
pub(crate) fn to_json(config: &Config) -> String {
    File::from(config).emit().to_json()
}
