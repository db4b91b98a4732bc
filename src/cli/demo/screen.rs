//! Progress on the terminal.

use std::cell::Cell;
use std::io::{self, Write as _};

/// Output of the progress.
pub(super) struct Screen {
    /// True: standard error, because another program reads standard output.
    errors: bool,
    /// Whether the last text did not end its line.
    unfinished: Cell<bool>,
}

impl Screen {
    pub(super) fn new(errors: bool) -> Self {
        Self { errors, unfinished: Cell::new(false) }
    }

    /// Shows text as it is. A failure to show progress does not stop the demo.
    pub(super) fn show(&self, text: &str) {
        self.unfinished.set(!text.ends_with('\n'));
        let _ = match self.errors {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        };
    }

    pub(super) fn end_line(&self) {
        if self.unfinished.get() {
            self.show("\n");
        }
    }
}
