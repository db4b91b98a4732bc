//! What a reload of the file would change, without a change.

use super::confirmation::Reload;
use super::reload_error::ReloadError;
use crate::api::{ChangedKey, Difference, EndingSessions};
use crate::config::{self, Change, Config, Loaded};
use crate::nat::PolicyPreview;

/// Compares the file with the configuration in use, and counts the sessions that a reload would
/// end. `preview`: prepares the count; None: the instance has no sessions.
///
/// # Errors
/// The file cannot be read, or has a problem.
pub(super) async fn difference(
    instance: &impl Reload,
    preview: impl FnOnce(&Config) -> Option<PolicyPreview>,
) -> Result<Difference, ReloadError> {
    let (Loaded { config: new, warnings }, _) = instance.read()?;
    let changes = config::changes(&instance.file_config(), &new);
    let changes: Vec<_> = changes.into_iter().map(|change| changed_key(instance, change)).collect();
    let is_refused = changes.iter().any(|change| change.needs_restart);
    let sessions_ended = match is_refused {
        true => None,
        false if changes.is_empty() => Some(EndingSessions::default()),
        false => Some(ending_sessions(preview(&new)).await),
    };
    let file = instance.path().display().to_string();
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok(Difference { file, changes, sessions_ended, warnings })
}

fn changed_key(instance: &impl Reload, change: Change) -> ChangedKey {
    let needs_restart = instance.needs_restart(&change);
    let Change { path: key, before, after, reloadable: _ } = change;
    ChangedKey { key, before, after, needs_restart }
}

async fn ending_sessions(preview: Option<PolicyPreview>) -> EndingSessions {
    let Some(preview) = preview else { return EndingSessions::default() };
    // On a thread of its own, because the count walks the whole table.
    let counted = tokio::task::spawn_blocking(move || preview.disallowed());
    // The runtime cancels no task that has begun, so an error is a panic of the task.
    let counted =
        counted.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let total = counted.iter().map(|(_, count)| count).sum();
    let some = counted.into_iter().filter(|(_, count)| *count != 0);
    let by_reason = some.map(|(reason, count)| (reason.name().to_owned(), count)).collect();
    EndingSessions { total, by_reason }
}
