//! The mapping log (`log.mappings`): which inside host had an external endpoint at a time.
//!
//! The log has one line for each beginning and each end of a mapping, with the time in UTC and the
//! name of the instance (RFC 6888 section 4, RFC 6302). A mapping without an end in the log ended
//! with the instance at the latest.

use std::time::{Duration, SystemTime};

use crate::nat::{MappingChange, MappingEvent, MappingEvents};
use crate::time::Tick;

use super::logging::MAPPINGS;
use super::sandbox;

/// Events that wait to be written. Events beyond this number are lost and counted.
pub(super) const CAPACITY: usize = 16_384;

/// Starts a thread that writes events until the translator is gone.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(name: &str, events: MappingEvents) -> std::io::Result<()> {
    let name = name.to_owned();
    sandbox::spawn("natbox-mappings", move || {
        let mut lost = 0;
        while let Some(event) = events.next() {
            write(&name, &event);
            if events.lost() != lost {
                let before = std::mem::replace(&mut lost, events.lost());
                tracing::warn!(
                    records = lost - before,
                    "log.mappings: records were lost: slow reader"
                );
            }
        }
    })?;
    Ok(())
}

fn write(name: &str, event: &MappingEvent) {
    let passed = Duration::from_millis(u64::from(Tick::now().since(event.at).0));
    let at = humantime::format_rfc3339_millis(SystemTime::now() - passed);
    let MappingEvent { change, protocol, inside, external, .. } = event;
    let change = match change {
        MappingChange::Begins => "mapping begins",
        MappingChange::Ends => "mapping ends",
    };
    tracing::info!(target: MAPPINGS, instance = name, %protocol, %inside, %external, %at, "{change}");
}
