//! The instance as the admin socket sees it: first it may wait for its interfaces, then it runs.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::task::JoinError;

use super::events::Events;
use super::explain::{self, ExplainError};
use super::reload::ReloadError;
use super::status::InstanceHandle;
use super::waiting::WaitingInstance;
use crate::api::{EffectiveConfig, Explanation, Reloaded, SessionCursor, SessionPage, Status};

/// The instance in its present stage. Connections of clients outlive the stages.
pub(super) struct Instance {
    stage: RefCell<InstanceStage>,
    events: Rc<Events>,
}

#[derive(Clone)]
enum InstanceStage {
    Waiting(Rc<WaitingInstance>),
    Running(Rc<InstanceHandle>),
}

impl Instance {
    pub(super) fn new(waiting: Rc<WaitingInstance>, events: Rc<Events>) -> Self {
        Self { stage: RefCell::new(InstanceStage::Waiting(waiting)), events }
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

    /// Returns a page of the sessions.
    ///
    /// # Errors
    /// The instance is stopping.
    pub(super) async fn sessions(&self, from: SessionCursor) -> Result<SessionPage, JoinError> {
        match self.stage() {
            InstanceStage::Waiting(_) => Ok(SessionPage { sessions: Vec::new(), next: None }),
            InstanceStage::Running(running) => running.sessions(from).await,
        }
    }

    /// Returns the configuration in use, and the identifiers of routing tables and rules.
    pub(super) fn effective_config(&self) -> EffectiveConfig {
        match self.stage() {
            InstanceStage::Waiting(waiting) => waiting.effective_config(),
            InstanceStage::Running(running) => running.effective_config(),
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

    /// Reads the configuration file again and uses it.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        match self.stage() {
            InstanceStage::Waiting(waiting) => waiting.reload().await,
            InstanceStage::Running(running) => running.reloader.reload().await,
        }
    }

    fn stage(&self) -> InstanceStage {
        self.stage.borrow().clone()
    }
}
