//! A model of the session table without regard to speed: a list that is searched from end to end.
//! The tests compare the table with the model (see `tests.rs`).
//!
//! The model shares the pure functions of TCP tracking with the table; those have tests of their
//! own.

use std::sync::atomic::AtomicU32;

use crate::nat::table::key::Key;
use crate::nat::table::session::NewSession;
use crate::nat::table::{EndReason, EndedSession, InsertError, Match};
use crate::nat::tracking::direction::Direction;
use crate::nat::tracking::state::{IdleTimeouts, State};
use crate::nat::tracking::tcp_state::{SequenceCheck, TcpState};
use crate::nat::tracking::tcp_window::{Segment, TcpFields};
use crate::time::{Span, Tick};

/// The model of a table.
pub(crate) struct Model {
    pub(crate) capacity: usize,
    pub(crate) idle_timeouts: IdleTimeouts,
    pub(crate) sessions: Vec<Session>,
}

/// A session of the model.
pub(crate) struct Session {
    pub(crate) new: NewSession,
    pub(crate) state: State,
    last_seen: Tick,
    tcp: TcpFields,
}

/// Outcome of a lookup in the model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExpectedLookup {
    Miss,
    /// The session of this original key has ended.
    Expired(Key),
    Hit(Expected),
}

/// The parts of a [`Match`] that must agree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    to: crate::packet::Tuple,
    direction: Direction,
    uplink: u8,
    pub(crate) ends_sooner: bool,
}

impl Expected {
    pub(crate) fn of(hit: &Match) -> Self {
        Self {
            to: hit.to,
            direction: hit.direction,
            uplink: hit.uplink,
            ends_sooner: hit.reschedule.is_some(),
        }
    }
}

impl Session {
    fn key(&self, direction: Direction) -> Key {
        match direction {
            Direction::Original => self.new.original,
            Direction::Reply => self.new.reply,
        }
    }

    pub(crate) fn deadline(&self, idle_timeouts: &IdleTimeouts) -> Tick {
        self.last_seen.after(idle_timeouts.of(self.state))
    }

    pub(crate) fn ended(&self) -> EndedSession {
        EndedSession {
            original: self.new.original,
            reply: self.new.reply,
            origin: self.new.origin,
            uplink: self.new.uplink,
            reason: EndReason::Expired,
            adopted: true,
        }
    }

    /// Whether eviction takes the session before any other.
    fn yields_first(&self, now: Tick, idle_timeouts: &IdleTimeouts) -> bool {
        let connected = [
            TcpState::Established,
            TcpState::FinOriginal,
            TcpState::FinReply,
            TcpState::FinBoth,
            TcpState::Reset,
        ];
        now.reached(self.deadline(idle_timeouts))
            || self.new.origin.is_from_client() && !connected.map(State::Tcp).contains(&self.state)
    }

    fn is_closing(&self) -> bool {
        [TcpState::FinBoth, TcpState::Reset].map(State::Tcp).contains(&self.state)
    }
}

impl Model {
    pub(crate) fn new(capacity: usize, idle_timeouts: IdleTimeouts) -> Self {
        Self { capacity, idle_timeouts, sessions: Vec::new() }
    }

    fn find(&self, key: Key) -> Option<(usize, Direction)> {
        let of = |direction| self.sessions.iter().position(|session| session.key(direction) == key);
        of(Direction::Original)
            .map(|index| (index, Direction::Original))
            .or_else(|| of(Direction::Reply).map(|index| (index, Direction::Reply)))
    }

    fn expected(&self, index: usize, direction: Direction) -> Expected {
        let session = &self.sessions[index];
        Expected {
            to: session.key(direction.opposite()).tuple().reversed(),
            direction,
            uplink: session.new.uplink,
            ends_sooner: false,
        }
    }

    pub(crate) fn insert(
        &mut self,
        new: &NewSession,
        first: Option<&Segment>,
        now: Tick,
    ) -> Result<(), InsertError> {
        if self.sessions.len() == self.capacity {
            return Err(InsertError::Full);
        }
        if self.find(new.original).is_some() {
            return Err(InsertError::AlreadyExists);
        }
        if self.find(new.reply).is_some() || new.original == new.reply {
            return Err(InsertError::ReplyConflict);
        }
        let tcp = TcpFields {
            next_sequence: [const { AtomicU32::new(0) }; 2],
            acknowledged: [const { AtomicU32::new(0) }; 2],
            window: AtomicU32::new(0),
        };
        tcp.reset();
        if let Some(segment) = first {
            tcp.advance(Direction::Original, segment, SequenceCheck::InWindow);
        }
        self.sessions.push(Session { new: *new, state: new.state, last_seen: now, tcp });
        Ok(())
    }

    pub(crate) fn lookup(&self, key: Key, now: Tick) -> ExpectedLookup {
        let Some((index, direction)) = self.find(key) else { return ExpectedLookup::Miss };
        let session = &self.sessions[index];
        if now.reached(session.deadline(&self.idle_timeouts)) {
            return ExpectedLookup::Expired(session.new.original);
        }
        ExpectedLookup::Hit(self.expected(index, direction))
    }

    pub(crate) fn lookup_and_update(
        &mut self,
        key: Key,
        segment: Option<&Segment>,
        now: Tick,
    ) -> ExpectedLookup {
        let found = self.lookup(key, now);
        let ExpectedLookup::Hit(expected) = found else { return found };
        let (index, direction) = self.find(key).expect("it was just found");
        let session = &mut self.sessions[index];
        let before = session.state;
        session.state = match (before, segment) {
            (State::Tcp(state), Some(segment)) => {
                let check = session.tcp.check(direction, segment);
                let after = state.after(direction, segment.flags, check);
                let opens_again = matches!(after, TcpState::SynOriginal | TcpState::SynReply)
                    || check == SequenceCheck::Reopened;
                if state.is_opening() && segment.flags.syn() {
                    session.tcp.reset_direction(direction);
                } else if after != state && opens_again {
                    session.tcp.reset();
                }
                let check = session.tcp.check(direction, segment);
                session.tcp.advance(direction, segment, check);
                State::Tcp(after)
            }
            (State::Udp | State::DnsReplied | State::Tentative, _) => {
                let is_dns = session.new.original.tuple().destination.port == 53;
                match direction {
                    Direction::Reply if is_dns => State::DnsReplied,
                    Direction::Original if before == State::Tentative => State::Tentative,
                    Direction::Original | Direction::Reply => State::Udp,
                }
            }
            (state @ (State::Tcp(_) | State::Icmp | State::Other), _) => state,
        };
        let idle_reset =
            segment.is_some_and(|segment| segment.flags.rst()) && session.state == before;
        if !idle_reset || !matches!(before, State::Tcp(_)) {
            session.last_seen = now;
        }
        let ends_sooner = self.idle_timeouts.of(session.state) < self.idle_timeouts.of(before)
            || session.state.is_closing() && !before.is_closing();
        ExpectedLookup::Hit(Expected { ends_sooner, ..expected })
    }

    /// Removes a session that the table has ended. The model must have it, the same in every part.
    pub(crate) fn remove(&mut self, ended: &EndedSession) -> Session {
        let index = self
            .sessions
            .iter()
            .position(|session| EndedSession { reason: ended.reason, ..session.ended() } == *ended);
        self.sessions
            .swap_remove(index.expect("the table ended a session that the model does not have"))
    }

    /// Whether the session may be evicted and no better victim exists.
    pub(crate) fn is_right_victim(&self, session: &Session, now: Tick) -> bool {
        let yields = |session: &Session| session.yields_first(now, &self.idle_timeouts);
        yields(session) || session.is_closing() && !self.sessions.iter().any(yields)
    }

    pub(crate) fn has_victim(&self, now: Tick) -> bool {
        self.sessions
            .iter()
            .any(|session| session.yields_first(now, &self.idle_timeouts) || session.is_closing())
    }

    /// Number of sessions whose deadline has been over for longer than `slack`.
    pub(crate) fn overdue(&self, now: Tick, slack: Span) -> usize {
        let late =
            |session: &&Session| now.reached(session.deadline(&self.idle_timeouts).after(slack));
        self.sessions.iter().filter(late).count()
    }
}
