//! The instance as the admin socket sees it: first it may wait for its interfaces, then it runs.

use std::cell::RefCell;
use std::rc::Rc;

use super::confirmation::Confirmation;
use super::difference::difference;
use super::drops;
use super::events::Events;
use super::explain::{self, ExplainError};
use super::packet_view::Visible;
use super::reload_error::ReloadError;
use super::status::InstanceHandle;
use super::trace;
use super::waiting::WaitingInstance;
use crate::api::{
    Confirmed, Difference, DropReport, EffectiveConfig, Explanation, Reloaded, Status,
};
use crate::engine::{Handle, Trace};
use crate::filter::FilterExpression;

/// The instance in its present stage. Connections of clients outlive the stages.
pub(super) struct Instance {
    stage: RefCell<InstanceStage>,
    events: Rc<Events>,
    confirmation: Rc<Confirmation>,
}

/// Reason why a trace cannot begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    /// No packet is translated yet.
    #[error("the instance waits for its interfaces and translates no packet yet")]
    Waiting,
    /// Each trace costs the workers time.
    #[error("too many traces are on; end one of them")]
    TooMany,
}

#[derive(Clone)]
enum InstanceStage {
    Waiting(Rc<WaitingInstance>),
    Running(Rc<InstanceHandle>),
}

impl Instance {
    pub(super) fn new(waiting: Rc<WaitingInstance>, events: Rc<Events>) -> Self {
        let confirmation = Rc::clone(waiting.confirmation());
        Self { stage: RefCell::new(InstanceStage::Waiting(waiting)), events, confirmation }
    }

    /// Answers from the running instance from now on.
    pub(super) fn run(&self, running: Rc<InstanceHandle>) {
        self.stage.replace(InstanceStage::Running(running));
    }

    /// Returns the events of all stages.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Returns the present status.
    pub(super) fn status(&self) -> Status {
        match self.stage() {
            InstanceStage::Waiting(waiting) => waiting.status(),
            InstanceStage::Running(running) => running.status(),
        }
    }

    /// Returns the engine. None while the instance waits for its interfaces.
    pub(super) fn engine(&self) -> Option<Handle> {
        match self.stage() {
            InstanceStage::Waiting(_) => None,
            InstanceStage::Running(running) => Some(running.engine.clone()),
        }
    }

    /// Returns the configuration in use, and the identifiers of routing tables and rules.
    pub(super) fn effective_config(&self) -> EffectiveConfig {
        match self.stage() {
            InstanceStage::Waiting(waiting) => waiting.effective_config(),
            InstanceStage::Running(running) => running.effective_config(),
        }
    }

    /// Returns the drops that match a filter.
    pub(super) fn drops(&self, filter: &FilterExpression, visible: Visible) -> DropReport {
        match self.stage() {
            InstanceStage::Waiting(_) => DropReport::default(),
            InstanceStage::Running(running) => {
                drops::report(&running.engine, &running.drop_rates, filter, visible)
            }
        }
    }

    /// Begins a trace of the packets that match a filter.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub(super) fn trace(&self, filter: FilterExpression) -> Result<Trace, TraceError> {
        match self.stage() {
            InstanceStage::Waiting(_) => Err(TraceError::Waiting),
            InstanceStage::Running(running) => {
                trace::begin(&running.engine, filter).ok_or(TraceError::TooMany)
            }
        }
    }

    /// Explains what would happen to a packet with these first bytes, and changes nothing.
    ///
    /// # Errors
    /// See [`ExplainError`].
    pub(super) fn explain(&self, packet: &str, length: u16) -> Result<Explanation, ExplainError> {
        let packet = explain::packet(packet, length)?;
        match self.stage() {
            InstanceStage::Waiting(_) => Err(ExplainError::Waiting),
            InstanceStage::Running(running) => {
                Ok(explain::explain(&running.engine, &running.reloader.config(), &packet))
            }
        }
    }

    /// Reads the configuration file again and uses it. `confirm_seconds`: the time after which the
    /// instance goes back, unless [`Self::confirm`] follows.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn reload(
        &self,
        confirm_seconds: Option<u64>,
    ) -> Result<Reloaded, ReloadError> {
        match (self.stage(), confirm_seconds) {
            (InstanceStage::Waiting(waiting), None) => self.confirmation.reload(&*waiting).await,
            (InstanceStage::Running(running), None) => {
                self.confirmation.reload(&*running.reloader).await
            }
            (InstanceStage::Waiting(waiting), Some(seconds)) => {
                self.confirmation.reload_for(&*waiting, seconds).await
            }
            (InstanceStage::Running(running), Some(seconds)) => {
                self.confirmation.reload_for(&*running.reloader, seconds).await
            }
        }
    }

    /// Makes the configuration of an unconfirmed reload stay.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn confirm(&self) -> Result<Confirmed, ReloadError> {
        self.confirmation.confirm().await
    }

    /// Goes back from an unconfirmed reload.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn cancel_reload(&self) -> Result<Reloaded, ReloadError> {
        match self.stage() {
            InstanceStage::Waiting(waiting) => self.confirmation.cancel(&*waiting).await,
            InstanceStage::Running(running) => self.confirmation.cancel(&*running.reloader).await,
        }
    }

    /// Returns what a reload would change.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn difference(&self) -> Result<Difference, ReloadError> {
        match self.stage() {
            InstanceStage::Waiting(waiting) => difference(&*waiting, |_| None).await,
            InstanceStage::Running(running) => {
                let reloader = &running.reloader;
                difference(&**reloader, |new| Some(reloader.preview(new))).await
            }
        }
    }

    fn stage(&self) -> InstanceStage {
        self.stage.borrow().clone()
    }
}
