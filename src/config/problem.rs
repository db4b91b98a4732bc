//! Problems of a configuration file, and the diagnostics that collect them.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// A point in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The beginning of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// Returns the position of the character that follows `text`.
    pub(super) fn after(text: &str) -> Self {
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        Self { line: text.matches('\n').count() + 1, column: last_line.chars().count() + 1 }
    }
}

/// One problem of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Path of the file, as given to natbox.
    pub file: String,
    /// Position of the value or key; none if the file could not be read at all.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// Key path such as `uplinks[0].gateway`; empty for the file as a whole.
    pub key: String,
    /// Description of the value that the file has.
    pub found: String,
    /// Description of the values that the key takes.
    pub wanted: String,
    /// Advice for the user.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(formatter, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": found {}, wanted {}; {}", self.found, self.wanted, self.advice)
    }
}

/// The problems of a file, in the order of the file, at most a thousand. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    /// True when the system did not let natbox read the file.
    #[serde(skip)]
    is_unreadable: bool,
}

impl Problems {
    /// Marks the problems as those of a file that the system did not let natbox read.
    pub(super) fn unreadable(self) -> Self {
        Self { is_unreadable: true, ..self }
    }

    /// Adds the problems of another file.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        Self { is_unreadable: self.is_unreadable && other.is_unreadable, ..self }
    }

    /// Returns true when the system did not let natbox read the file. Time may help, where it does
    /// not help a file with a wrong content.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// Returns the problems in the order of the file.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Returns whether there is no problem.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A position and the key path that leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// None: the file as a whole.
    pub position: Option<Position>,
    /// Key path; empty at the root.
    pub key: String,
}

impl Location {
    /// Makes the location of the file as a whole.
    pub(super) fn file() -> Self {
        Self { position: None, key: String::new() }
    }

    /// Returns the location of a key of the mapping at this location. The position stays.
    pub(super) fn field(&self, key: &str) -> Self {
        let separator = if self.key.is_empty() { "" } else { "." };
        Self { position: self.position, key: format!("{}{separator}{key}", self.key) }
    }
}

/// Collects problems and warnings of a file.
#[derive(Debug)]
pub(super) struct Diagnostics {
    file: String,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Diagnostics {
    /// Makes empty diagnostics for a file of this name.
    pub(super) fn new(file_name: &str) -> Self {
        Self { file: file_name.into(), problems: RefCell::default(), warnings: RefCell::default() }
    }

    /// Records a problem.
    pub(super) fn report(
        &self,
        location: &Location,
        found: impl Into<String>,
        wanted: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let problem = self.problem(location, found.into(), wanted.into(), advice.into());
        push_bounded(&mut self.problems.borrow_mut(), problem);
    }

    /// Records a warning.
    pub(super) fn warn(
        &self,
        location: &Location,
        found: impl Into<String>,
        wanted: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let problem = self.problem(location, found.into(), wanted.into(), advice.into());
        push_bounded(&mut self.warnings.borrow_mut(), problem);
    }

    /// Returns whether the diagnostics hold as many problems as they record.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    /// Returns the problems and the warnings, each in the order of the file.
    pub(super) fn into_outcome(self) -> (Problems, Vec<Problem>) {
        let mut problems = self.problems.into_inner();
        let mut warnings = self.warnings.into_inner();
        problems.sort_by_key(|problem| problem.position);
        warnings.sort_by_key(|warning| warning.position);
        (Problems { list: problems, is_unreadable: false }, warnings)
    }

    fn problem(
        &self,
        location: &Location,
        found: String,
        wanted: String,
        advice: String,
    ) -> Problem {
        Problem {
            file: self.file.clone(),
            position: location.position,
            key: location.key.clone(),
            found,
            wanted,
            advice,
        }
    }
}

/// Why a text is no value of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValueError {
    /// The values that the key takes.
    pub wanted: String,
    /// Advice for the user.
    pub advice: String,
}

impl ValueError {
    /// Makes an error of a description and an advice.
    pub(super) fn new(wanted: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), advice: advice.into() }
    }

    /// Keeps the advice and replaces what is wanted.
    pub(super) fn wanting(self, wanted: &str) -> Self {
        Self { wanted: wanted.into(), ..self }
    }
}

/// Returns a text of the file for a message: in backticks, with control characters escaped, and cut
/// if it is long.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    let rest = if text.chars().nth(SHOWN_CHARACTERS).is_some() { "..." } else { "" };
    format!("`{}{rest}`", shown.replace("\\'", "'").replace("\\\"", "\""))
}

/// Records a problem, unless the diagnostics are full. Bounds the memory and the output that a
/// hostile file causes.
fn push_bounded(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(problem);
    }
}

/// Most problems that are recorded.
const MAX_PROBLEMS: usize = 1000;

/// Most characters of a text of the file that a message shows.
const SHOWN_CHARACTERS: usize = 60;
