//! Any text as a configuration file: natbox accepts it or names problems, and what natbox accepts
//! survives being printed.

use natbox::fuzzing::AcceptedConfig;

/// Reads the text.
///
/// # Panics
/// If an accepted configuration reads back differently from its own YAML or JSON, or if a rejected
/// one has no problem.
pub fn run(data: &[u8]) {
    match AcceptedConfig::parse(&String::from_utf8_lossy(data)) {
        Ok(config) => {
            for text in [config.to_yaml(), config.to_json()] {
                assert_eq!(AcceptedConfig::parse(&text).as_ref(), Ok(&config), "{text}");
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "a text is rejected without a problem"),
    }
}
