//! Log output, as the configuration wants it.
//!
//! Levels are a contract: WARN means a person should look, INFO tells starts, stops and what was found, client
//! addresses appear at DEBUG and below only, and nothing is ever logged by a worker for a packet.

use tracing::level_filters::LevelFilter;

use super::config::{Log, LogFormat, LogLevel};

/// Starts logging to standard error. A second call changes nothing.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Fails only when a logger runs already, as in tests.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
