//! Log output, as the configuration wants it.
//!
//! Levels are a contract: WARN means a person should look, INFO tells starts, stops and what was found, client
//! addresses appear at DEBUG and below only, and nothing is ever logged by a worker for a packet. The mapping log is
//! apart: it has a key of its own and does not care for the level.
//!
//! Lines are written by a thread of their own, so that a reader who stops reading stops nothing else: beyond
//! [`UNWRITTEN_LINES`] they are lost, and counted.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat, LogLevel};

/// Target of the mapping log's lines.
pub(super) const MAPPINGS: &str = "mappings";

/// Keep it until the end of the process: when it is dropped, what is not written yet is.
#[must_use = "logging ends when this is dropped"]
pub struct Logging {
    _writer: WorkerGuard,
}

/// Starts logging to standard error. A second call changes nothing.
pub fn start(log: Log) -> Logging {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(UNWRITTEN_LINES)
        .finish(std::io::stderr());
    let _ = LOST.set(writer.error_counter());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let lines = match log.format {
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let wanted = Targets::new()
        .with_default(level)
        .with_target(MAPPINGS, LevelFilter::INFO)
        // It warns of what strangers write in their messages.
        .with_target("hickory_", LevelFilter::ERROR.min(level))
        // A health check that finds a bad certificate says so itself, once.
        .with_target("rustls_platform_verifier", LevelFilter::OFF);
    // Fails only when a logger runs already, as in tests.
    let _ = tracing_subscriber::registry().with(lines.with_filter(wanted)).try_init();
    Logging { _writer: guard }
}

/// Lines that were lost because nobody read them.
pub(super) fn dropped_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}

static LOST: OnceLock<ErrorCounter> = OnceLock::new();
/// Lines that wait for a slow reader.
const UNWRITTEN_LINES: usize = 16_384;
