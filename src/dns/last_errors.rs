//! The present errors of DNS updates and of the hook, for the status.

use parking_lot::Mutex;

/// Last errors, while they last.
#[derive(Debug, Default)]
pub(super) struct LastErrors {
    /// Why the zone on the other server is out of date.
    pub update: LastError,
    /// Why the hook does not run.
    pub hook: LastError,
}

/// One error as a sentence, until it is cleared.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub(super) fn set(&self, text: impl Into<String>) {
        *self.0.lock() = Some(text.into());
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    pub(super) fn text(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
