//! What does not work at the moment, for whoever shows how things are.

use parking_lot::Mutex;

/// Troubles of whoever tells others.
#[derive(Debug, Default)]
pub(super) struct LastErrors {
    /// Why the zone elsewhere does not know how the lines are.
    pub update: LastError,
    /// Why the hook is not run.
    pub hook: LastError,
}

/// One trouble as a sentence, while it lasts.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub fn set(&self, text: impl Into<String>) {
        *self.0.lock() = Some(text.into());
    }

    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    pub fn text(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
