//! `natbox sessions`: lists, sorts and counts the sessions of a running instance.
//!
//! A listing is a stream: the command holds one page at a time. A sorted listing holds as many
//! sessions as it prints.

mod columns;
mod conntrack;
mod count;
mod order;
#[cfg(test)]
mod testing;

use std::io::{self, IsTerminal as _};
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::columns::Column;
use self::order::FirstSessions;
use super::exit::Failure;
use super::filter_argument::FilterArgument;
use super::output::{self, offer};
use super::progress::Progress;
use super::target::InstanceSelector;
use crate::api::{Request, SessionCursor, SessionGroup, SessionPage, SessionView};

pub(super) use self::count::count_matching;

/// Arguments of `natbox sessions`.
#[derive(Debug, Args)]
pub(super) struct SessionsArguments {
    #[command(flatten)]
    instance: InstanceSelector,
    #[command(flatten)]
    filter: FilterArgument,
    /// Columns of the table, with commas between them
    ///
    /// Age, packets, bytes and rate need `limits.accounting`.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with_all = ["json", "json_lines", "output"])]
    columns: Vec<Column>,
    /// Sort by a column: large numbers first, words and addresses ascending
    #[arg(long, value_name = "COLUMN")]
    sort: Option<Column>,
    /// Reverse the order of `--sort`
    #[arg(long, requires = "sort")]
    reverse: bool,
    /// List the first N sessions of the order: without `--sort` those with the most bytes, or
    /// without accounting those that are least idle
    #[arg(long, value_name = "N")]
    top: Option<NonZeroUsize>,
    /// Print the number of sessions only
    #[arg(long, conflicts_with_all = ["columns", "sort", "json_lines", "output"])]
    count: bool,
    /// Count the sessions of each client, server, uplink, forward or state, the largest group first
    ///
    /// `--top N` prints the N largest groups.
    #[arg(long, value_name = "PROPERTY", conflicts_with_all = ["columns", "sort", "count", "json_lines", "output"])]
    group_by: Option<SessionGroup>,
    /// Print again every SECONDS, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    watch: Option<NonZeroU32>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print one JSON object a line, as the sessions arrive
    #[arg(long, conflicts_with_all = ["json", "output"])]
    json_lines: bool,
    /// Print in the form of another program
    #[arg(short = 'o', long, value_name = "FORM", conflicts_with = "json")]
    output: Option<ForeignForm>,
}

/// Forms of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ForeignForm {
    /// Lines of `conntrack -L`
    Conntrack,
}

/// Lists or counts the sessions of an instance.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named,
/// or when the filter is wrong.
pub(super) fn run(arguments: &SessionsArguments) -> Result<ExitCode, Failure> {
    arguments.filter.parse()?;
    let Some(seconds) = arguments.watch else {
        arguments.print()?;
        return Ok(ExitCode::SUCCESS);
    };
    let is_terminal = io::stdout().is_terminal();
    loop {
        if is_terminal && !offer(CLEAR_SCREEN)? {
            return Ok(ExitCode::SUCCESS);
        }
        let goes_on = arguments.print()? && (is_terminal || arguments.json || offer("")?);
        if !goes_on {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(seconds.get().into()));
    }
}

impl SessionsArguments {
    /// Prints one listing or count. Returns false when the reader has closed its end.
    fn print(&self) -> Result<bool, Failure> {
        let filter = self.filter.text();
        if self.count || self.group_by.is_some() {
            let progress = Progress::of_wait("counting sessions");
            let counted = count::count_matching(&self.instance, &filter, self.group_by)?;
            drop(progress);
            let limit = self.top.map_or(usize::MAX, NonZeroUsize::get);
            return match self.json {
                true => offer(&output::json(&counted.to_json(self.group_by, limit))?),
                false => offer(&counted.to_text(limit)),
            };
        }
        if self.sort.is_none() && self.top.is_none() { self.stream() } else { self.print_sorted() }
    }

    /// Prints the sessions in the order in which they arrive.
    fn stream(&self) -> Result<bool, Failure> {
        let mut printer = Printer { arguments: self, printed: 0, checked: false };
        let progress = Progress::of_output("sessions");
        let mut next = Some(SessionCursor::default());
        while let Some(from) = next {
            let page = self.page(from)?;
            next = page.next;
            progress.add(page.sessions.len());
            if !printer.print(&page.sessions)? {
                return Ok(false);
            }
        }
        printer.finish()
    }

    fn print_sorted(&self) -> Result<bool, Failure> {
        let limit = self.top.map_or(MAX_SORTED, NonZeroUsize::get);
        let mut first: Option<FirstSessions> = None;
        let progress = Progress::of_output("sessions");
        let mut next = Some(SessionCursor::default());
        while let Some(from) = next {
            let page = self.page(from)?;
            next = page.next;
            progress.add(page.sessions.len());
            for session in page.sessions {
                let column = self.sort.unwrap_or(match session.traffic {
                    Some(_) => Column::TotalBytes,
                    None => Column::Idle,
                });
                let is_reversed = self.reverse || (self.sort.is_none() && column == Column::Idle);
                let make = || FirstSessions::new(column, is_reversed, limit);
                first.get_or_insert_with(make).add(session);
            }
        }
        let (sessions, left_out) = first.map_or((Vec::new(), 0), FirstSessions::finish);
        if self.top.is_none() && left_out != 0 {
            return Err(Failure::user(anyhow::anyhow!(
                "--sort: found {} sessions, wanted at most {MAX_SORTED}; add --top N or a filter",
                sessions.len() as u64 + left_out
            )));
        }
        let mut printer = Printer { arguments: self, printed: 0, checked: false };
        Ok(printer.print(&sessions)? && printer.finish()?)
    }

    fn page(&self, from: SessionCursor) -> Result<SessionPage, Failure> {
        self.instance.ask(&Request::Sessions { from, filter: self.filter.text() })
    }
}

/// Prints sessions in the form that the arguments ask for.
struct Printer<'a> {
    arguments: &'a SessionsArguments,
    printed: u64,
    /// The columns have been checked against the first session.
    checked: bool,
}

impl Printer<'_> {
    /// Prints some sessions. Returns false when the reader has closed its end.
    fn print(&mut self, sessions: &[SessionView]) -> Result<bool, Failure> {
        let mut lines = Vec::with_capacity(sessions.len() + 1);
        let arguments = self.arguments;
        let columns = match arguments.columns.as_slice() {
            [] => &Column::DEFAULT[..],
            columns => columns,
        };
        for session in sessions {
            if !self.checked {
                self.check(session)?;
            }
            if arguments.json {
                let separator = if self.printed == 0 { "[" } else { "," };
                lines.push(format!("{separator}{}", output::json_line(session)?));
            } else if arguments.json_lines {
                lines.push(output::json_line(session)?);
            } else if arguments.output == Some(ForeignForm::Conntrack) {
                lines.push(conntrack::line(session));
            } else {
                if self.printed == 0 {
                    lines.push(columns::titles(columns));
                }
                lines.push(columns::row(columns, session));
            }
            self.printed += 1;
        }
        if lines.is_empty() { Ok(true) } else { offer(&lines.join("\n")) }
    }

    /// Checks that the instance has the values of the wanted columns.
    fn check(&mut self, session: &SessionView) -> Result<(), Failure> {
        let mut wanted = self.arguments.columns.iter().chain(&self.arguments.sort);
        let lacking = wanted.find(|column| column.needs_accounting());
        if let (Some(column), None) = (lacking, session.traffic) {
            let name = column.to_possible_value().expect("no column is hidden");
            return Err(Failure::user(anyhow::anyhow!(
                "column {}: this instance does not count it; set limits.accounting to true and \
                 restart",
                name.get_name()
            )));
        }
        self.checked = true;
        Ok(())
    }

    fn finish(&self) -> Result<bool, Failure> {
        match (self.arguments.json, self.printed) {
            (true, 0) => offer("[]"),
            (true, _) => offer("]"),
            (false, _) => Ok(true),
        }
    }
}

/// Most sessions that are sorted without `--top`. They take about 40 MB.
const MAX_SORTED: usize = 50_000;
/// Moves the cursor to the first line and clears the screen (ECMA-48).
const CLEAR_SCREEN: &str = "\u{1b}[H\u{1b}[2J";
