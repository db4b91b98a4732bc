//! Log output as configured.
//!
//! Levels are a contract:
//!
//! * WARN: a person should look.
//! * INFO: starts, stops and changes of state.
//! * DEBUG and below: may contain addresses of clients.
//!
//! A worker never logs a packet. The mapping log has a key of its own and ignores the level.
//!
//! A separate thread writes the lines, so a slow reader delays no other thread. Lines beyond
//! [`MAX_UNWRITTEN_LINES`] are dropped and counted.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use super::error::RunError;
use super::sandbox;
use crate::config::{Log, LogFormat, LogLevel};

/// Target of the mapping log's lines.
pub(super) const MAPPINGS: &str = "mappings";

/// The running log output. Writes the remaining lines when dropped.
#[must_use = "logging ends when this is dropped"]
pub(crate) struct Logging {
    _writer: WorkerGuard,
}

/// Starts logging to standard error. A second call does nothing.
///
/// # Errors
/// [`RunError::Sandbox`].
pub(crate) fn start(log: Log) -> Result<Logging, RunError> {
    let (writer, guard) = start_writer()?;
    let _ = DROPPED.set(writer.error_counter());
    let lines = lines(log.format, writer.clone()).with_filter(wanted(log.level));
    let (lines, handle) = reload::Layer::new(lines);
    // Fails only if a logger runs already, as in tests.
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        let _ = CHANGE.set(Box::new(move |log: Log| {
            // Fails only when the logger is gone.
            let _ = handle.modify(|layer| {
                *layer.filter_mut() = wanted(log.level);
                *layer.inner_mut() = self::lines(log.format, writer.clone());
            });
        }));
    }
    Ok(Logging { _writer: guard })
}

/// Changes level and form of the lines from now on.
pub(super) fn change(log: Log) {
    if let Some(change) = CHANGE.get() {
        change(log);
    }
}

/// Makes the layer that writes lines of a form.
fn lines(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Returns the lines that a level wants.
fn wanted(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level)
        .with_target(MAPPINGS, LevelFilter::INFO)
        // hickory warns about the content of messages from any client.
        .with_target("hickory_", LevelFilter::ERROR.min(level))
        // The health check reports a bad certificate itself, once.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
}

/// Starts the thread that writes the lines, without privileges: it inherits those of the thread
/// that starts it, which has dropped its own.
fn start_writer() -> Result<(NonBlocking, WorkerGuard), RunError> {
    let starter = std::thread::spawn(|| {
        sandbox::enter_without_files()?;
        let builder = NonBlockingBuilder::default().buffered_lines_limit(MAX_UNWRITTEN_LINES);
        Ok(builder.finish(std::io::stderr()))
    });
    starter.join().expect("a panic ends the process").map_err(RunError::Sandbox)
}

/// Returns the number of lines that were dropped because the reader was slow.
pub(super) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// Changes level and form.
static CHANGE: OnceLock<Box<dyn Fn(Log) + Send + Sync>> = OnceLock::new();
/// Lines that wait for a slow reader.
const MAX_UNWRITTEN_LINES: usize = 16_384;
