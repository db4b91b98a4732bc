//! `natbox top`: the rates of a running instance on the terminal, again every second.

mod draw;
mod sample;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::sample::{Sampler, View};
use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::target::InstanceSelector;

/// Arguments of `natbox top`.
#[derive(Debug, Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    instance: InstanceSelector,
    #[command(flatten)]
    filter: FilterArgument,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
}

/// Shows the rates until the user quits.
///
/// # Errors
/// A user error when standard output is no terminal, or when the filter is wrong. An environment
/// error when no instance answers at the start.
pub(super) fn run(arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let TopArguments { instance, filter, interval } = arguments;
    filter.parse()?;
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::user(anyhow!(
            "top: found no terminal, wanted one; for scripts: natbox status --json"
        )));
    }
    let mut sampler = Sampler::new(instance, filter.text());
    let view = sampler.look()?;
    // Also restores the terminal when the program panics.
    let mut terminal = ratatui::try_init().context("the terminal").map_err(Failure::environment)?;
    let interval = Duration::from_secs((*interval).into());
    let outcome = show(&mut terminal, &mut sampler, view, interval);
    ratatui::restore();
    outcome.context("the terminal").map_err(Failure::environment)?;
    Ok(ExitCode::SUCCESS)
}

/// Draws, waits for a key or the next look, and so on.
fn show(
    terminal: &mut DefaultTerminal,
    sampler: &mut Sampler<'_>,
    mut view: View,
    interval: Duration,
) -> io::Result<()> {
    let mut paused = false;
    let mut note = KEYS.to_owned();
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw::draw(frame, &view, &note))?;
        match key_before(next)? {
            Some(Key::Quit) => return Ok(()),
            Some(Key::Pause) => {
                paused = !paused;
                note = if paused { PAUSED.to_owned() } else { KEYS.to_owned() };
            }
            Some(Key::Other) => {}
            None => {
                next = Instant::now() + interval;
                if paused {
                    continue;
                }
                // The instance may start again.
                match sampler.look() {
                    Ok(new) => (view, note) = (new, KEYS.to_owned()),
                    Err(failure) => note = failure.to_string(),
                }
            }
        }
    }
}

/// What the user wants.
enum Key {
    Quit,
    Pause,
    /// Another key, or the terminal has another size.
    Other,
}

/// Waits for a key until `deadline`.
fn key_before(deadline: Instant) -> io::Result<Option<Key>> {
    if !event::poll(deadline.saturating_duration_since(Instant::now()))? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else { return Ok(Some(Key::Other)) };
    if key.kind != KeyEventKind::Press {
        return Ok(Some(Key::Other));
    }
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    let is = |character| key.code == KeyCode::Char(character);
    Ok(Some(if is('q') || key.code == KeyCode::Esc || is_interrupt {
        Key::Quit
    } else if is(' ') {
        Key::Pause
    } else {
        Key::Other
    }))
}

const KEYS: &str = "q quit   space pause";
const PAUSED: &str = "paused   q quit   space continue";
