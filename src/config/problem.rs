//! Problems: what is wrong, where, and what to do; and the diagnostics that collects them.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// A point in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The position of the character that follows `text`.
    pub(super) fn after(text: &str) -> Self {
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        Self { line: text.matches('\n').count() + 1, column: last_line.chars().count() + 1 }
    }
}

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as it was named to natbox.
    pub file: String,
    /// Where; none if the file could not be read at all.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// Key path such as `uplinks[0].gateway`; empty for the file as a whole.
    pub key: String,
    /// What stands there.
    pub found: String,
    /// What should stand there.
    pub wanted: String,
    /// What to do about it.
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

/// The problems of a file, in its order, at most a thousand; shown one a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Number of problems; never 0 in what [`super::load`] and [`super::parse`] return.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
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
    /// The file as a whole.
    pub fn file() -> Self {
        Self { position: None, key: String::new() }
    }

    /// A key of the mapping at this place; the position stays.
    pub fn field(&self, key: &str) -> Self {
        let separator = if self.key.is_empty() { "" } else { "." };
        Self { position: self.position, key: format!("{}{separator}{key}", self.key) }
    }
}

/// Collects problems and warnings while decoding goes on.
#[derive(Debug)]
pub(super) struct Diagnostics {
    file: String,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Diagnostics {
    /// An empty diagnostics for a file of this name.
    pub fn new(file_name: &str) -> Self {
        Self { file: file_name.into(), problems: RefCell::default(), warnings: RefCell::default() }
    }

    /// Records a problem.
    pub fn report(
        &self,
        place: &Location,
        found: impl Into<String>,
        wanted: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let problem = self.problem(place, found.into(), wanted.into(), advice.into());
        push_bounded(&mut self.problems.borrow_mut(), problem);
    }

    /// Records a warning.
    pub fn warn(
        &self,
        place: &Location,
        found: impl Into<String>,
        wanted: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let problem = self.problem(place, found.into(), wanted.into(), advice.into());
        push_bounded(&mut self.warnings.borrow_mut(), problem);
    }

    /// Whether further problems are no longer recorded.
    pub fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    /// Problems and warnings, each in the order of the file.
    pub fn into_outcome(self) -> (Problems, Vec<Problem>) {
        let mut problems = self.problems.into_inner();
        let mut warnings = self.warnings.into_inner();
        problems.sort_by_key(|problem| problem.position);
        warnings.sort_by_key(|warning| warning.position);
        (Problems(problems), warnings)
    }

    fn problem(&self, place: &Location, found: String, wanted: String, advice: String) -> Problem {
        Problem {
            file: self.file.clone(),
            position: place.position,
            key: place.key.clone(),
            found,
            wanted,
            advice,
        }
    }
}

/// What a value should have been.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValueError {
    /// The values that the key takes.
    pub wanted: String,
    /// What to do.
    pub advice: String,
}

impl ValueError {
    /// Makes an error of the two.
    pub fn new(wanted: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), advice: advice.into() }
    }

    /// Keeps the advice and replaces what is wanted.
    pub fn wanting(self, wanted: &str) -> Self {
        Self { wanted: wanted.into(), ..self }
    }
}

/// Text from the file as it stands in a message: in backticks, control characters escaped, the end of a long one cut.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    let rest = if text.chars().nth(SHOWN_CHARACTERS).is_some() { "..." } else { "" };
    format!("`{}{rest}`", shown.replace("\\'", "'").replace("\\\"", "\""))
}

/// Keeps what a hostile file can make natbox print and hold within bounds.
fn push_bounded(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(problem);
    }
}

/// More are not recorded; nobody mends more in one go.
const MAX_PROBLEMS: usize = 1000;

/// How much of a text from the file a message shows.
const SHOWN_CHARACTERS: usize = 60;
