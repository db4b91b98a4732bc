//! The subsystem that goes back when the time for a confirmation has passed.

use std::rc::Rc;

use super::confirmation::Confirmation;
use super::reload::Reloader;
use super::subsystem::{Outcome, Subsystem};

/// Goes back from a reload that is not confirmed in time.
pub(super) struct Countdown {
    confirmation: Rc<Confirmation>,
    reloader: Rc<Reloader>,
}

impl Countdown {
    pub(super) fn new(confirmation: Rc<Confirmation>, reloader: Rc<Reloader>) -> Self {
        Self { confirmation, reloader }
    }
}

impl Subsystem for Countdown {
    type Event = ();
    const NAME: &'static str = "countdown of a reload";

    async fn next(&mut self) {
        self.confirmation.due().await;
    }

    async fn handle(&mut self, (): ()) -> Outcome {
        // An error is in the events and in the status.
        let _ = self.confirmation.expire(&*self.reloader).await;
        Outcome::Continue(())
    }
}
