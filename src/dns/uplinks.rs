//! The lines and whether they are usable: set by whoever knows, heard by whoever answers or tells.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A line as a name server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkState {
    /// Its name.
    pub name: String,
    /// The address that leads clients to it; none: it has none at the moment, and nobody is led there.
    pub address: Option<Ipv4Addr>,
    /// The box's own address on it: what is sent from there leaves by this line; none: there is none.
    pub source: Option<Ipv4Addr>,
    /// Its share of the clients, 1 or more.
    pub weight: u32,
    /// Whether it carries traffic.
    pub up: bool,
}

/// All lines at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkStates {
    /// The lines; their order never changes.
    pub lines: Vec<UplinkState>,
    /// Grows with every change: seconds since 1970 at the last one.
    pub serial: u32,
}

/// The lines of a box: one writer, many listeners. A listener that is slow misses what was undone meanwhile, and never
/// the last state.
#[derive(Debug)]
pub struct Uplinks(watch::Sender<UplinkStates>);

impl Uplinks {
    /// Lines as they are at the start.
    pub fn new(lines: Vec<UplinkState>) -> Self {
        Self(watch::Sender::new(UplinkStates { lines, serial: seconds_since_1970() }))
    }

    /// Says whether a line is usable; listeners hear of it only if that is new. A number that no line has is ignored.
    pub fn set_up(&self, line: usize, usable: bool) {
        self.change(line, |line| std::mem::replace(&mut line.up, usable) != usable);
    }

    /// Says which address a line has now, like [`Self::set_up`].
    pub fn set_address(&self, line: usize, address: Option<Ipv4Addr>) {
        self.change(line, |line| std::mem::replace(&mut line.address, address) != address);
    }

    fn change(&self, line: usize, change: impl FnOnce(&mut UplinkState) -> bool) {
        self.0.send_if_modified(|snapshot| {
            let changed = snapshot.lines.get_mut(line).is_some_and(change);
            if changed {
                snapshot.serial = seconds_since_1970().max(snapshot.serial.wrapping_add(1));
            }
            changed
        });
    }

    /// Another listener.
    pub fn watch(&self) -> watch::Receiver<UplinkStates> {
        self.0.subscribe()
    }
}

impl UplinkStates {
    /// The usable ones among some lines, or all of these if there is none: dead data is better than none. With their
    /// addresses; lines that have none are left out.
    pub(super) fn addresses_to_serve(&self, among: &[usize]) -> Vec<(&UplinkState, Ipv4Addr)> {
        let lines = || among.iter().filter_map(|number| self.lines.get(*number));
        let lines = || lines().filter_map(|line| Some((line, line.address?)));
        let usable: Vec<_> = lines().filter(|(line, _)| line.up).collect();
        if usable.is_empty() { lines().collect() } else { usable }
    }
}

fn seconds_since_1970() -> u32 {
    // Serial numbers wrap by design (RFC 1982).
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn listeners_hear_of_news_only() {
        let lines = Uplinks::new(lines().lines);
        let mut listener = lines.watch();
        lines.set_up(1, true);
        lines.set_up(7, false);
        lines.set_address(0, Some(Ipv4Addr::new(203, 0, 113, 1)));
        assert!(!listener.has_changed().unwrap());
        let before = listener.borrow().serial;
        lines.set_up(1, false);
        assert!(listener.has_changed().unwrap());
        assert!(!listener.borrow_and_update().lines[1].up);
        lines.set_up(1, true);
        assert!(listener.borrow().serial >= before + 2, "two changes within one second");
    }

    #[test]
    fn without_a_usable_line_all_are_answered() {
        let lines = Uplinks::new(lines().lines);
        let names = || -> Vec<String> {
            lines
                .watch()
                .borrow()
                .addresses_to_serve(&[0, 2])
                .iter()
                .map(|(line, _)| line.name.clone())
                .collect()
        };
        assert_eq!(names(), ["isp1", "isp3"]);
        lines.set_up(0, false);
        assert_eq!(names(), ["isp3"]);
        lines.set_up(2, false);
        assert_eq!(names(), ["isp1", "isp3"], "isp2 is usable, but not a line of this name");
        lines.set_address(0, None);
        assert_eq!(names(), ["isp3"], "what has no address cannot be answered");
    }
}
