//! Reading and printing a configuration, for fuzz targets.

use super::{Config, Loaded, parse, to_json, to_yaml};

/// A configuration that natbox accepts.
#[derive(Debug, PartialEq)]
pub struct AcceptedConfig(Config);

impl AcceptedConfig {
    /// Reads a text as `natbox check` does.
    ///
    /// # Errors
    /// All problems of the text, as natbox prints them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse("f.yaml", text) {
            Ok(Loaded { config, .. }) => Ok(Self(config)),
            Err(problems) => Err(problems.to_string()),
        }
    }

    /// Prints the effective configuration as YAML.
    pub fn to_yaml(&self) -> String {
        to_yaml(&self.0)
    }

    /// Prints the effective configuration as JSON.
    pub fn to_json(&self) -> String {
        to_json(&self.0)
    }
}
