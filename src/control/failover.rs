//! What becomes of new and old sessions when a line fails or is back.
//!
//! In one step the translator is told what each line takes on; from the next packet on nothing new goes over a failed line.
//! Only then, and only where the configuration asks for it, the sessions of that line are ended, slice by slice. Nothing
//! is done to a line's sessions while no other line is healthy: there is nowhere to go.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::config::{Config, Failback, OnFailure, Uplink};
use super::events::{Events, News};
use super::health::{Line, LineTurn, Lines, Reason, Turn};
use crate::nat::{Affected, Intake, Nat, SweepPlace};
use crate::time::Tick;

/// Acts on turns of the lines.
pub(super) struct Failover {
    uplinks: Vec<Uplink>,
    lines: Lines,
    nat: Arc<ArcSwap<Nat>>,
    events: Rc<Events>,
    /// For each line, whether its sessions have no more to hope for.
    condemned: Rc<RefCell<Vec<bool>>>,
}

impl Failover {
    pub(super) fn new(config: &Config, lines: Lines, nat: Arc<ArcSwap<Nat>>, events: Rc<Events>) -> Self {
        let condemned = Rc::new(RefCell::new(vec![false; config.uplinks.len()]));
        let failover = Self { uplinks: config.uplinks.clone(), lines, nat, events, condemned };
        failover.settle();
        failover
    }

    /// Tells of a turn, and acts on it. `error`: what the last probe without an answer met with. Must run in a `LocalSet`.
    pub(super) fn act(&self, LineTurn { uplink, turn }: LineTurn, error: &str) {
        let settings = &self.uplinks[uplink];
        let name = settings.name.clone();
        self.events.tell(match turn {
            Turn::Up => News::LineHealthy { uplink: name },
            Turn::Down(Reason::NoCarrier) => {
                News::LineFailed { uplink: name, reason: "no carrier, or no address".to_owned() }
            }
            Turn::Down(Reason::NoAnswer) if error.is_empty() => {
                News::LineFailed { uplink: name, reason: "no answer".to_owned() }
            }
            Turn::Down(Reason::NoAnswer) => {
                News::LineFailed { uplink: name, reason: format!("no answer ({error})") }
            }
        });
        self.settle();
        if turn == Turn::Up && settings.failback == Failback::Move {
            let lines = Rc::clone(&self.lines);
            self.sweep(Affected::Returning(uplink as u8), uplink, move || {
                lines.borrow()[uplink].is_healthy()
            });
        }
    }

    /// Makes the translator do as the lines are.
    fn settle(&self) {
        let healthy: Vec<bool> = self.lines.borrow().iter().map(Line::is_healthy).collect();
        let any = healthy.contains(&true);
        let nat = self.nat.load();
        for (number, settings) in self.uplinks.iter().enumerate() {
            let intake = match settings.on_failure {
                _ if healthy[number] || !any => Intake::Open,
                OnFailure::Keep => Intake::Held,
                OnFailure::Drain | OnFailure::Reset => Intake::Closed,
            };
            nat.set_intake(number as u8, intake);
        }
        for (number, settings) in self.uplinks.iter().enumerate() {
            let condemned = any && !healthy[number] && settings.on_failure == OnFailure::Reset;
            let before = std::mem::replace(&mut self.condemned.borrow_mut()[number], condemned);
            if condemned && !before {
                let condemned = Rc::clone(&self.condemned);
                self.sweep(Affected::Over(number as u8), number, move || condemned.borrow()[number]);
            }
        }
    }

    /// Ends affected sessions, as long as there is reason to.
    fn sweep(&self, affected: Affected, uplink: usize, goes_on: impl Fn() -> bool + 'static) {
        let (nat, events) = (Arc::clone(&self.nat), Rc::clone(&self.events));
        let name = self.uplinks[uplink].name.clone();
        tokio::task::spawn_local(async move {
            let mut ended = 0;
            let mut place = Some(SweepPlace::default());
            while let Some(from) = place
                && goes_on()
            {
                let (sessions, next) = nat.load().sweep(affected, from, Tick::now());
                ended += sessions;
                place = next;
                // The rest of the control thread has a turn, and the workers one if there is much to say.
                match nat.load().farewells() {
                    0..MANY => tokio::task::yield_now().await,
                    MANY.. => tokio::time::sleep(PAUSE).await,
                }
            }
            if ended != 0 {
                events.tell(News::SessionsEnded { uplink: name, sessions: ended });
            }
        });
    }
}

/// Farewells that may wait before a sweep does.
const MANY: usize = 4096;
const PAUSE: Duration = Duration::from_millis(1);
