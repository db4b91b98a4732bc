//! The process under test.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use natbox::api::{Reloaded, SessionCursor, SessionPage, SessionView, Status};
use natbox::api::{Request, client};
use natbox::lab::{Child, Namespace};
use rustix::process::Signal;

use super::{Config, NATBOX, SingleBox, eventually, seconds};

/// A box that has answered on its admin socket. A drop stops the box.
#[derive(Debug)]
pub(crate) struct RunningBox {
    pub process: Child,
    pub path: PathBuf,
    socket: PathBuf,
}

impl RunningBox {
    pub(super) fn start(testbed: &SingleBox, config: &Config) -> RunningBox {
        let path = testbed.write(&config.name, &config.to_string());
        RunningBox::launch(&testbed.natbox, &config.name, &path, &config.socket)
    }

    /// Runs a box with a configuration file in a namespace, and waits until the box answers.
    pub(crate) fn launch(
        namespace: &Namespace,
        name: &str,
        path: &Path,
        socket: &Path,
    ) -> RunningBox {
        RunningBox::launch_behind(&[], namespace, name, path, socket)
    }

    /// Runs the box behind a command that prepares the environment.
    pub(crate) fn launch_behind(
        before: &[&str],
        namespace: &Namespace,
        name: &str,
        path: &Path,
        socket: &Path,
    ) -> RunningBox {
        let mut running = RunningBox::spawn_behind(before, namespace, name, path, socket);
        running.wait_to_answer();
        running
    }

    /// Runs the box, and does not wait.
    pub(crate) fn spawn(namespace: &Namespace, name: &str, path: &Path, socket: &Path) -> Self {
        RunningBox::spawn_behind(&[], namespace, name, path, socket)
    }

    /// Runs the box behind a command that prepares the environment, and does not wait.
    pub(crate) fn spawn_behind(
        before: &[&str],
        namespace: &Namespace,
        name: &str,
        path: &Path,
        socket: &Path,
    ) -> RunningBox {
        let words = before.iter().copied().chain([NATBOX, "run", "--config"]).collect::<Vec<_>>();
        let mut command = namespace.command(words[0]);
        command.args(&words[1..]).arg(path);
        let process = namespace.spawn(name, command).unwrap();
        RunningBox { process, path: path.to_owned(), socket: socket.to_owned() }
    }

    /// Waits until the box answers on its admin socket.
    pub(crate) fn wait_to_answer(&mut self) {
        let deadline = Instant::now() + seconds(20);
        while client::request::<Status>(&self.socket, &Request::Status).is_err() {
            let ended = self.process.ended().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the box did not get ready ({ended:?}):\n{}",
                self.process.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn status(&self) -> Status {
        client::request(&self.socket, &Request::Status).unwrap()
    }

    /// Returns all sessions.
    pub(crate) fn sessions(&self) -> Vec<SessionView> {
        let (mut sessions, mut next) = (Vec::new(), Some(SessionCursor::default()));
        while let Some(from) = next {
            let page: SessionPage =
                client::request(&self.socket, &Request::Sessions { from, filter: String::new() })
                    .unwrap();
            sessions.extend(page.sessions);
            next = page.next;
        }
        sessions
    }

    /// Makes the box reload its configuration.
    pub(crate) fn reload(&self) -> Reloaded {
        self.try_reload().unwrap()
    }

    /// Makes the box reload its configuration, which the box may reject.
    pub(crate) fn try_reload(&self) -> Result<Reloaded, client::ClientError> {
        client::request(&self.socket, &Request::Reload)
    }

    /// Returns the number of packets dropped so far for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.status().drops.get(reason).copied().unwrap_or(0)
    }

    /// Returns the resident memory of the process, in kilobytes.
    pub(crate) fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Stops the box by a signal. The exit code must be 0.
    pub(crate) fn stop(mut self, signal: Signal) {
        self.process.signal(signal).unwrap();
        let status = self.process.wait(seconds(10)).unwrap().expect("the box ends after a signal");
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
    }

    /// Kills the box without a clean-up.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Waits until the log contains `words`.
    pub(crate) fn wait_for_log(&self, words: &str) {
        eventually(&format!("the log says {words:?}"), || {
            self.process.log().contains(words).then_some(())
        });
    }
}

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Asserts the exit code, and that standard error contains all of these words in one message.
    #[track_caller]
    pub(crate) fn assert_says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in: {}", self.stderr);
        }
        // Log lines begin with their time and are no messages.
        let messages: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| !line.starts_with("20") && !line.is_empty())
            .collect();
        assert_eq!(messages.len(), 1, "one clear message: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

pub(super) fn to_its_end(namespace: &Namespace, before: &[&str], arguments: &[&str]) -> Ended {
    // `timeout` kills a process that runs on.
    let mut command = namespace.command("timeout");
    command.args(["--signal=KILL", "15"]).args(before).arg(NATBOX).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
