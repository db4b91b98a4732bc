//! `natbox top` in a terminal of 80 x 24, driven by tmux.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::site::Operated;
use crate::single_box::{NATBOX, SERVER, eventually};

/// A tmux server with one session.
struct Tmux(String);

impl Tmux {
    fn start(name: String, columns: u16, rows: u16, command: &str) -> Self {
        let tmux = Self(name);
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, command]);
        tmux
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.0]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    fn is_running(&self) -> bool {
        !self.run(&["list-sessions"]).is_empty()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn the_screen_shows_the_traffic_and_the_keys_work() {
    let operated = Operated::start(", accounting: true");
    let socket = operated.running.socket().display().to_string();
    let name = format!("natbox-test-{}", std::process::id());
    let tmux = Tmux::start(name, 80, 24, &format!("{NATBOX} top --socket {socket} tcp"));
    let (mut ends, stop) = (operated.inbound(), AtomicBool::new(false));
    let client = ends.client.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        let (server, stop) = (&mut ends.server, &stop);
        scope.spawn(move || {
            // About 4 MB a second, until the client's end is closed.
            while !stop.load(Ordering::Relaxed) && server.write_all(&[7; 40_000]).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        });
        let reader = &mut ends.client;
        scope.spawn(move || {
            let mut buffer = [0; 64 << 10];
            while let Ok(1..) = reader.read(&mut buffer) {}
        });
        let row = |screen: &str, start: &str| -> Option<Vec<String>> {
            let row = screen.lines().find(|line| line.starts_with(start))?;
            Some(row.split_whitespace().map(str::to_owned).collect())
        };
        let screen = eventually("rates of every part", || {
            let screen = tmux.screen();
            let uplink = row(&screen, "isp ")?;
            let forward = row(&screen, "web ")?;
            let session = row(&screen, "tcp ")?;
            let has_rate = |text: &String| text.ends_with("Mb/s");
            (has_rate(&uplink[4]) && has_rate(&forward[2]) && has_rate(session.last()?))
                .then_some(screen)
        });
        assert_eq!(screen.lines().count(), 24, "{screen}");
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        let uplink = row(&screen, "isp ").unwrap();
        assert_eq!(uplink[1..3], ["in", "use"], "{screen}");
        assert_eq!(uplink[5], "100%", "{screen}");
        let session = row(&screen, "tcp ").unwrap();
        assert_eq!(session[1..4], [client, format!("{SERVER}:80"), "isp".to_owned()], "{screen}");
        let forward = row(&screen, "web ").unwrap();
        assert_eq!((forward[1].as_str(), forward[3].as_str()), ("1", "10.0.0.101"), "{screen}");

        tmux.run(&["send-keys", " "]);
        eventually("the pause", || tmux.screen().contains("paused").then_some(()));
        tmux.run(&["send-keys", "q"]);
        eventually("the end", || (!tmux.is_running()).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn without_a_terminal_the_message_names_the_command_for_scripts() {
    let operated = Operated::start("");
    let message = operated.refusal(&["top"]);
    assert!(message.contains("natbox status --json"), "{message}");
}
