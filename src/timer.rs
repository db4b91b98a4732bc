//! Waiting in the tasks of the control side.

use std::time::Instant;

/// Sleeps until a moment; for ever without one. Cancel safe.
pub(crate) async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
