//! The progress of work that takes long: a line on standard error, if that is a terminal.
//!
//! The line appears after a second and vanishes with the end of the work, so that no short command
//! shows it, and no file or pipe ever has it.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Work that takes long. A drop ends the line.
pub(super) struct Progress {
    count: Arc<AtomicU64>,
    /// The line and its end; None: it is not shown.
    shown: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Shows the seconds of a wait. `doing`: the work, such as `counting sessions`.
    pub(super) fn of_wait(doing: &'static str) -> Self {
        let is_shown = io::stderr().is_terminal();
        Self::new(is_shown, FIRST, io::stderr(), move |_, time| {
            format!("{doing}: {} s", time.as_secs())
        })
    }

    /// Shows a growing number. `what`: the things that are counted, such as `sessions`. Shows
    /// nothing if they are printed on the same terminal.
    pub(super) fn of_output(what: &'static str) -> Self {
        let is_shown = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self::new(is_shown, FIRST, io::stderr(), move |count, _| format!("{count} {what}"))
    }

    /// Adds to the number.
    pub(super) fn add(&self, count: usize) {
        // The thread only shows the number.
        self.count.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn new(
        is_shown: bool,
        first: Duration,
        mut screen: impl Write + Send + 'static,
        text: impl Fn(u64, Duration) -> String + Send + 'static,
    ) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        if !is_shown {
            return Self { count, shown: None };
        }
        let (end, ended) = mpsc::channel::<()>();
        let (counted, started) = (Arc::clone(&count), Instant::now());
        let show = move || {
            let mut wait = first;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = INTERVAL;
                let text = text(counted.load(Ordering::Relaxed), started.elapsed());
                // Progress that cannot be shown does not stop the work.
                let _ = write!(screen, "\r{text}{ERASE}").and_then(|()| screen.flush());
            }
            if wait == INTERVAL {
                let _ = write!(screen, "\r{ERASE}").and_then(|()| screen.flush());
            }
        };
        // Without a thread the work goes on unseen.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { count, shown: thread.map(|thread| (end, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.shown.take() {
            drop(end);
            // It has no reason to panic, and the line matters less than the work.
            let _ = thread.join();
        }
    }
}

/// Time until the line appears.
const FIRST: Duration = Duration::from_secs(1);
/// Time between two texts of the line.
const INTERVAL: Duration = Duration::from_millis(200);
/// Erases the rest of the line (ECMA-48, EL).
const ERASE: &str = "\u{1b}[K";

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// A screen that the test reads.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn progress(is_shown: bool, first: Duration, screen: &Screen) -> Progress {
        Progress::new(is_shown, first, screen.clone(), |count, _| format!("{count} sessions"))
    }

    #[test]
    fn long_work_shows_its_number_and_leaves_an_empty_line() {
        let screen = Screen::default();
        let progress = progress(true, Duration::ZERO, &screen);
        progress.add(1_000);
        progress.add(234);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !screen.text().contains("\r1234 sessions") {
            assert!(Instant::now() < deadline, "{:?}", screen.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(progress);
        assert!(screen.text().ends_with("\r\u{1b}[K"), "{:?}", screen.text());
    }

    #[test]
    fn short_work_and_a_file_show_nothing() {
        let screen = Screen::default();
        drop(progress(true, Duration::from_secs(60), &screen));
        let unseen = progress(false, Duration::ZERO, &screen);
        unseen.add(1);
        assert!(unseen.shown.is_none());
        drop(unseen);
        assert_eq!(screen.text(), "");
    }
}
