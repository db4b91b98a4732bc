//! The mapping log (`log.mappings`): which inside endpoint had an external endpoint at a time.
//!
//! The log has one record for each beginning and each end, with the time of the event in UTC and the name
//! of the instance (RFC 6888 section 4, RFC 6302). A mapping without an end in the log ended with the
//! instance at the latest.

use std::time::{Duration, SystemTime};

use crate::nat::{MappingChange, MappingEvent, MappingEvents};
use crate::time::Tick;

use super::logging::MAPPINGS;

/// Events that may wait to be written; further ones are lost and counted.
pub(super) const ROOM: usize = 16_384;

/// Writes events until the instance stops, in a thread of its own.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn start(name: &str, events: MappingEvents) -> std::io::Result<()> {
    let name = name.to_owned();
    std::thread::Builder::new().name("natbox-mappings".to_owned()).spawn(move || {
        let mut lost = 0;
        while let Some(event) = events.next() {
            write(&name, &event);
            if events.lost() != lost {
                let before = std::mem::replace(&mut lost, events.lost());
                tracing::warn!(records = lost - before, "records of the mapping log were lost");
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
    tracing::info!(target: MAPPINGS, r#box = name, %protocol, %inside, %external, %at, "{change}");
}
