//! Builds a tree of nodes with positions from the events of the YAML parser.
//!
//! The reader accepts the plain part of YAML: one document, lists, mappings with text as keys, and
//! scalars. It refuses anchors, aliases, tags and further documents, so the file holds every node
//! exactly once.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::config::problem::{Diagnostics, Location, Position, quoted};

/// A value and its position.
#[derive(Debug)]
pub(in crate::config) struct Node {
    /// Position of the first character.
    pub position: Position,
    /// The value.
    pub value: Value,
}

/// A value of the file. The type of a scalar is not decided yet.
#[derive(Debug)]
pub(in crate::config) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar without quotes.
    Plain(String),
    /// A scalar in quotes, or a block of text.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys may repeat.
    Mapping(Vec<MappingEntry>),
}

/// A key with its value.
#[derive(Debug)]
pub(in crate::config) struct MappingEntry {
    /// The key's text.
    pub key: String,
    /// Position of the key.
    pub position: Position,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// Describes the value for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Plain(text) => quoted(text),
            Value::Quoted(text) => format!("the text {}", quoted(text)),
            Value::List(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }
}

/// Reads the text into a tree; None after reporting a problem.
///
/// The tree of an empty file is an empty mapping. A tree is at most [`MAX_DEPTH`] levels deep, so
/// recursion over it is safe.
pub(in crate::config) fn read(text: &str, diagnostics: &Diagnostics) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !acceptable_text(text, diagnostics) {
        return None;
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    loop {
        let outcome = match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((event, span))) => builder.add(event, Position::from(&span.start)),
            Some(Err(error)) => Err(Unreadable::syntax(&error, text)),
        };
        if let Err(Unreadable { position, found, wanted, advice }) = outcome {
            diagnostics.report(
                &Location { position: Some(position), key: String::new() },
                found,
                wanted,
                advice,
            );
            return None;
        }
    }
    Some(
        builder
            .root
            .unwrap_or(Node { position: Position::START, value: Value::Mapping(Vec::new()) }),
    )
}

/// Refuses texts that are too long, or hold characters that YAML does not allow. The parser takes a
/// NUL for the end of the file.
fn acceptable_text(text: &str, diagnostics: &Diagnostics) -> bool {
    if text.len() > MAX_BYTES {
        let wanted = format!("at most {MAX_BYTES} bytes");
        diagnostics.report(
            &Location::file(),
            "a larger file",
            wanted,
            "check that this is natbox's configuration",
        );
        return false;
    }
    let foreign = |character: char| {
        character.is_control() && !matches!(character, '\t' | '\n' | '\r')
            || character == '\u{feff}'
    };
    let Some((offset, character)) = text.char_indices().find(|(_, character)| foreign(*character))
    else {
        return true;
    };
    let location =
        Location { position: Some(Position::after(&text[..offset])), key: String::new() };
    let found = format!("the control character U+{:04X}", u32::from(character));
    diagnostics.report(&location, found, "text", "remove it, or check that this is a YAML file");
    false
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A problem that ends the reading, because the rest of the file cannot be interpreted.
struct Unreadable {
    position: Position,
    found: String,
    wanted: String,
    advice: String,
}

impl Unreadable {
    fn new(position: Position, found: &str, wanted: &str, advice: &str) -> Self {
        Self { position, found: found.into(), wanted: wanted.into(), advice: advice.into() }
    }

    fn too_deep(position: Position) -> Self {
        let found = format!("more than {MAX_DEPTH} levels of nesting");
        Self::new(position, &found, "fewer", "compare with `natbox config --reference`")
    }

    fn syntax(error: &ScanError, text: &str) -> Self {
        let position = Position::from(error.marker());
        if error.info().contains("recursion limit") {
            return Self::too_deep(position);
        }
        let line = text.lines().nth(position.line.saturating_sub(1)).unwrap_or_default();
        let advice = if line
            .chars()
            .take_while(|character| character.is_whitespace())
            .any(|blank| blank == '\t')
        {
            "indent with spaces, not with tabs"
        } else {
            "check this line and the one before for indentation, a missing `:`, bracket or quote"
        };
        Self::new(position, &format!("broken YAML ({})", error.info()), "YAML", advice)
    }
}

/// Puts events together. Holds the collections that have not ended yet, outermost first.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

/// A collection that has not ended yet.
enum Open {
    List(Position, Vec<Node>),
    /// Position, entries, and the key whose value comes next.
    Mapping(Position, Vec<MappingEntry>, Option<(String, Position)>),
}

impl Builder {
    fn add(&mut self, event: Event<'_>, position: Position) -> Result<(), Unreadable> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_none() => Ok(()),
            Event::DocumentStart(_) => Err(Unreadable::new(
                position,
                "a second YAML document",
                "one",
                "write one configuration per file and remove the `---`",
            )),
            Event::Alias(_) => Err(shared(position)),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                Err(shared(position))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(Unreadable::new(
                position,
                "a YAML tag (`!`)",
                "a plain value",
                "remove the tag",
            )),
            Event::Scalar(text, style, _, None) => {
                self.add_scalar(text.into_owned(), style, position)
            }
            Event::SequenceStart(_, None) => self.start(Open::List(position, Vec::new()), position),
            Event::MappingStart(_, None) => {
                self.start(Open::Mapping(position, Vec::new(), None), position)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let value = match self.open.pop() {
                    Some(Open::List(position, items)) => {
                        Node { position, value: Value::List(items) }
                    }
                    Some(Open::Mapping(position, entries, _)) => {
                        Node { position, value: Value::Mapping(entries) }
                    }
                    None => unreachable!("the parser ended a collection that it had not begun"),
                };
                self.close(value);
                Ok(())
            }
        }
    }

    fn add_scalar(
        &mut self,
        text: String,
        style: ScalarStyle,
        position: Position,
    ) -> Result<(), Unreadable> {
        if let Some(Open::Mapping(_, _, key @ None)) = self.open.last_mut() {
            *key = Some((text, position));
            return Ok(());
        }
        let value = match style {
            ScalarStyle::Plain if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => {
                Value::Null
            }
            ScalarStyle::Plain => Value::Plain(text),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => Value::Quoted(text),
        };
        self.close(Node { position, value });
        Ok(())
    }

    fn start(&mut self, collection: Open, position: Position) -> Result<(), Unreadable> {
        if let Some(Open::Mapping(_, _, None)) = self.open.last() {
            let found = "a list or mapping as a key";
            return Err(Unreadable::new(
                position,
                found,
                "text as a key",
                "check the indentation and the brackets",
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Unreadable::too_deep(position));
        }
        self.open.push(collection);
        Ok(())
    }

    /// Adds a finished node to the collection around it.
    fn close(&mut self, value: Node) {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List(_, items)) => items.push(value),
            Some(Open::Mapping(_, entries, key)) => match key.take() {
                Some((key, position)) => entries.push(MappingEntry { key, position, value }),
                None => unreachable!("a value without a key: keys are taken before values"),
            },
        }
    }
}

fn shared(position: Position) -> Unreadable {
    Unreadable::new(
        position,
        "a YAML anchor or alias (`&`, `*`)",
        "the value itself",
        "write the value out",
    )
}

/// Largest file that is read, in bytes. Thousands of forwards fit.
pub(in crate::config) const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting. The schema needs five levels.
const MAX_DEPTH: usize = 16;
