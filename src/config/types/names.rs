//! Names and paths.

use std::path::PathBuf;

use crate::config::document::Document;
use crate::config::problem::ValueError;

use super::constraint::pattern;
use super::scalar::{Format, shown};

/// Returns the type of a box's name, which becomes part of file names.
pub(in crate::config) fn instance_name() -> Format<String> {
    Format::text("name of 1 to 63 letters, digits, `-`, `_`, `.`", parse_instance_name, shown)
        .bounded(|| pattern("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))
}

/// Reads a box's name.
pub(in crate::config) fn parse_instance_name(text: &str) -> Result<String, ValueError> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    {
        return Ok(text.into());
    }
    let wanted = format!(
        "a name of 1 to {MAX_NAME} letters, digits, `-`, `_`, `.`, beginning with a letter or digit"
    );
    Err(ValueError::new(wanted, "choose another name"))
}

/// Describes valid names of boxes if this name is not one of them; None if the name is valid.
pub(crate) fn wanted_instance_name(text: &str) -> Option<String> {
    parse_instance_name(text).err().map(|error| error.wanted)
}

/// Returns the type of the name of an uplink or a forward, for listings.
pub(in crate::config) fn label() -> Format<String> {
    Format::text("name of 1 to 63 bytes", parse_label, shown).bounded(|| {
        Document::mapping([
            ("type", "string".into()),
            ("minLength", 1.into()),
            ("maxLength", 63.into()),
        ])
    })
}

fn parse_label(text: &str) -> Result<String, ValueError> {
    // U+2028 and U+2029 break lines, though Unicode does not count them as control characters.
    let breaks_listings =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    if (1..=MAX_NAME).contains(&text.len())
        && !text.contains(breaks_listings)
        && text.trim() == text
    {
        return Ok(text.into());
    }
    let wanted = format!("a name of 1 to {MAX_NAME} bytes in one line");
    Err(ValueError::new(wanted, "shorten it, without blanks at its ends"))
}

/// Returns the type of the name or the number of a group of users.
pub(in crate::config) fn group() -> Format<String> {
    Format::text("name or number of a group", parse_group, shown)
        .bounded(|| pattern("^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$"))
}

fn parse_group(text: &str) -> Result<String, ValueError> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let first = |first: char| first.is_ascii_alphanumeric() || first == '_';
    if text.len() <= MAX_GROUP && text.chars().all(plain) && text.starts_with(first) {
        return Ok(text.into());
    }
    let wanted =
        format!("a name of at most {MAX_GROUP} letters, digits, `-`, `_`, `.`, or a number");
    Err(ValueError::new(wanted, "write the group as /etc/group has it"))
}

/// Returns the type of an absolute path that fits a Unix socket's address.
pub(in crate::config) fn socket_path() -> Format<PathBuf> {
    Format::text("absolute path of at most 107 bytes", parse_socket_path, |path| {
        Document::text(path.display())
    })
    .bounded(|| pattern("^/.{0,105}[^/]$"))
}

fn parse_socket_path(text: &str) -> Result<PathBuf, ValueError> {
    let wanted = || format!("an absolute path of at most {MAX_SOCKET_PATH} bytes");
    if !is_absolute(text) {
        return Err(ValueError::new(
            wanted(),
            "write it from the root, such as /run/natbox/natbox1.sock",
        ));
    }
    if text.len() > MAX_SOCKET_PATH {
        return Err(ValueError::new(wanted(), "choose a shorter directory or name"));
    }
    Ok(text.into())
}

/// Returns the type of the absolute path of a file.
pub(in crate::config) fn absolute_path() -> Format<PathBuf> {
    Format::text("absolute path of a file", parse_absolute_path, |path| {
        Document::text(path.display())
    })
    .bounded(|| pattern("^/.*[^/]$"))
}

fn parse_absolute_path(text: &str) -> Result<PathBuf, ValueError> {
    if is_absolute(text) && text.len() < MAX_PATH {
        return Ok(text.into());
    }
    Err(ValueError::new(
        "the absolute path of a file",
        "write it from the root, with a leading `/`",
    ))
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains(char::is_control)
}

/// Bytes of a name.
const MAX_NAME: usize = 63;

/// Bytes of the name of a group (groupadd(8)).
const MAX_GROUP: usize = 32;

/// Bytes of a Unix socket's path: `sun_path` less its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Bytes of a path with its final zero (`PATH_MAX`).
const MAX_PATH: usize = 4096;

#[cfg(test)]
mod tests;
