//! What becomes of new and old sessions when a line fails or is back.
//!
//! In one step the translator is told what each line takes on; from the next packet on nothing new goes over a failed line.
//! Only then, and only where the configuration asks for it, the sessions of that line are ended, slice by slice. Nothing
//! is done to a line's sessions while no other line is healthy: there is nowhere to go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::events::Events;
use super::health::{DownReason, UplinkEvent, UplinkHealth, UplinkHealths, UplinkTransition};
use crate::api::EventKind;
use crate::config::{Config, Failback, OnFailure, Uplink};
use crate::nat::{AdmitNew, EndReason, Filter, TableCursor, Translator};
use crate::time::Tick;

/// Acts on turns of the lines.
pub(super) struct Failover {
    uplinks: Vec<Uplink>,
    lines: UplinkHealths,
    nat: Arc<ArcSwap<Translator>>,
    events: Rc<Events>,
    /// Whether any line was healthy when it was looked at last.
    any_healthy: Cell<bool>,
    /// For each line, whether its sessions have no more to hope for.
    condemned: Rc<RefCell<Vec<bool>>>,
}

impl Failover {
    pub(super) fn new(
        config: &Config,
        lines: UplinkHealths,
        nat: Arc<ArcSwap<Translator>>,
        events: Rc<Events>,
    ) -> Self {
        let condemned = Rc::new(RefCell::new(vec![false; config.uplinks.len()]));
        let (uplinks, any_healthy) = (config.uplinks.clone(), Cell::new(true));
        let failover = Self { uplinks, lines, nat, events, any_healthy, condemned };
        failover.settle();
        failover
    }

    /// Tells of a turn, and acts on it. `error`: what the last probe without an answer met with. Must run in a `LocalSet`.
    pub(super) fn act(&self, UplinkTransition { uplink, turn }: UplinkTransition, error: &str) {
        let settings = &self.uplinks[uplink];
        let name = settings.name.clone();
        self.events.emit(match turn {
            UplinkEvent::Up => EventKind::UplinkHealthy { uplink: name },
            UplinkEvent::Down(DownReason::NoCarrier) => EventKind::UplinkFailed {
                uplink: name,
                reason: "no carrier, no address or no next hop".to_owned(),
            },
            UplinkEvent::Down(DownReason::NoAnswer) if error.is_empty() => {
                EventKind::UplinkFailed { uplink: name, reason: "no answer".to_owned() }
            }
            UplinkEvent::Down(DownReason::NoAnswer) => {
                EventKind::UplinkFailed { uplink: name, reason: format!("no answer ({error})") }
            }
        });
        self.settle();
        if turn == UplinkEvent::Up && settings.failback == Failback::Reset {
            let lines = Rc::clone(&self.lines);
            self.sweep(
                (Filter::preferring(uplink as u8), EndReason::Failback),
                uplink,
                Duration::ZERO,
                move || lines.borrow()[uplink].is_healthy(),
            );
        }
    }

    /// Makes the translator do as the lines are.
    fn settle(&self) {
        let healthy: Vec<bool> = self.lines.borrow().iter().map(UplinkHealth::is_healthy).collect();
        let any = healthy.contains(&true);
        // Lines that failed together come back together, but one of them is the first. The others get a moment, too.
        let delay = match self.any_healthy.replace(any) {
            true => |_: &Uplink| Duration::ZERO,
            false => |uplink: &Uplink| {
                uplink
                    .health
                    .as_ref()
                    .map_or(LINK_DELAY, |health| health.interval * (health.rise + 1))
            },
        };
        let nat = self.nat.load();
        for (number, settings) in self.uplinks.iter().enumerate() {
            let intake = match settings.on_failure {
                _ if healthy[number] || !any => AdmitNew::All,
                OnFailure::Keep => AdmitNew::KnownEndpoints,
                OnFailure::Drain | OnFailure::Reset => AdmitNew::None,
            };
            nat.set_admission(number as u8, intake);
        }
        for (number, settings) in self.uplinks.iter().enumerate() {
            let condemned = any && !healthy[number] && settings.on_failure == OnFailure::Reset;
            let before = std::mem::replace(&mut self.condemned.borrow_mut()[number], condemned);
            if condemned && !before {
                let condemned = Rc::clone(&self.condemned);
                let delay = delay(settings);
                let doomed = (Filter::movable_from(number as u8), EndReason::UplinkFailed);
                self.sweep(doomed, number, delay, move || condemned.borrow()[number]);
            }
        }
    }

    /// Ends the sessions that match a filter after `delay`, as long as `goes_on` is true.
    fn sweep(
        &self,
        (filter, reason): (Filter, EndReason),
        uplink: usize,
        delay: Duration,
        goes_on: impl Fn() -> bool + 'static,
    ) {
        let (nat, events) = (Arc::clone(&self.nat), Rc::clone(&self.events));
        let name = self.uplinks[uplink].name.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let mut ended = 0;
            let mut place = Some(TableCursor::default());
            while let Some(from) = place
                && goes_on()
            {
                let slice = nat.load().end_matching(&filter, reason, from, Tick::now());
                ended += slice.ended;
                place = slice.next;
                // The rest of the control thread has a turn, and the workers one if there is much to say.
                match nat.load().notifications() {
                    0..MAX_QUEUED_NOTIFICATIONS => tokio::task::yield_now().await,
                    MAX_QUEUED_NOTIFICATIONS.. => tokio::time::sleep(PAUSE).await,
                }
            }
            if ended != 0 {
                events.emit(EventKind::SessionsEnded { uplink: name, sessions: ended });
            }
        });
    }
}

/// NotificationQueue that may wait before a sweep does.
const MAX_QUEUED_NOTIFICATIONS: usize = 4096;
const PAUSE: Duration = Duration::from_millis(1);
/// For interfaces that are up again at the same time.
const LINK_DELAY: Duration = Duration::from_secs(1);
