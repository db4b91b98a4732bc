//! What does not work at the moment, for whoever shows how things are.

use parking_lot::Mutex;

/// Troubles of whoever tells others.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Why the zone elsewhere does not know how the lines are.
    pub update: Trouble,
    /// Why the hook is not run.
    pub hook: Trouble,
}

/// One trouble as a sentence, while it lasts.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    pub fn begin(&self, text: impl Into<String>) {
        *self.0.lock() = Some(text.into());
    }

    pub fn end(&self) {
        *self.0.lock() = None;
    }

    pub fn text(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
