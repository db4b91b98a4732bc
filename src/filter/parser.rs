//! From text to a tree.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::condition::{Comparison, Condition, End, EndpointPattern, PROTOCOLS, Property};
use super::expression::FilterExpression;
use super::lexer::{Token, tokens};
use crate::nearest::advise;
use crate::packet::Protocol;

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, column {column}: found {found}, wanted {wanted}")]
pub(crate) struct FilterError {
    /// Place of the first wrong character, counted from 1.
    pub(crate) column: usize,
    found: String,
    wanted: String,
}

/// Reads a filter.
fn parse(text: &str) -> Result<FilterExpression, FilterError> {
    let tokens = tokens(text);
    if tokens.is_empty() {
        return Ok(FilterExpression::default());
    }
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: &tokens, end, depth: 0 };
    let filter = parser.any()?;
    match parser.tokens.first() {
        None => Ok(filter),
        Some(token) => Err(refuse(token, "a condition, `and`, `or` or the end".to_owned())),
    }
}

impl FromStr for FilterExpression {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        parse(text)
    }
}

struct Parser<'a, 't> {
    tokens: &'a [Token<'t>],
    /// Column behind the last character.
    end: usize,
    /// Number of brackets and `not` that are open.
    depth: usize,
}

impl<'t> Parser<'_, 't> {
    fn peek(&self) -> Option<&'t str> {
        self.tokens.first().map(|token| token.text)
    }

    fn next(&mut self, wanted: &str) -> Result<Token<'t>, FilterError> {
        let (first, rest) = self.tokens.split_first().ok_or_else(|| FilterError {
            column: self.end,
            found: "the end".to_owned(),
            wanted: wanted.to_owned(),
        })?;
        self.tokens = rest;
        Ok(*first)
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.peek() == Some(text);
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn any(&mut self) -> Result<FilterExpression, FilterError> {
        let mut filters = vec![self.all()?];
        while self.take("or") {
            filters.push(self.all()?);
        }
        Ok(single_or(filters, FilterExpression::Any))
    }

    fn all(&mut self) -> Result<FilterExpression, FilterError> {
        let mut filters = vec![self.not()?];
        while !matches!(self.peek(), None | Some("or" | ")")) {
            self.take("and");
            filters.push(self.not()?);
        }
        Ok(single_or(filters, FilterExpression::All))
    }

    fn not(&mut self) -> Result<FilterExpression, FilterError> {
        if !matches!(self.peek(), Some("not" | "(")) {
            return self.condition();
        }
        let token = self.next("a condition")?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(refuse(
                &token,
                format!("at most {MAX_DEPTH} brackets and `not` in one another"),
            ));
        }
        let filter = match token.text {
            "not" => FilterExpression::Not(Box::new(self.not()?)),
            _ => {
                let filter = self.any()?;
                let close = self.next("`)`")?;
                if close.text != ")" {
                    return Err(refuse(&close, "`)`".to_owned()));
                }
                filter
            }
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn condition(&mut self) -> Result<FilterExpression, FilterError> {
        let token = self.next("a condition")?;
        let find = |word| Some(word) == Some(token.text);
        let condition = if let Some((_, protocol)) = PROTOCOLS.iter().find(|(word, _)| find(*word))
        {
            Condition::Protocol(*protocol)
        } else if token.text == "protocol" {
            self.protocol()?
        } else if let Some((_, end)) = End::WORDS.iter().find(|(word, _)| find(*word)) {
            let token = self.next(ENDPOINT)?;
            let pattern = endpoint(token.text).ok_or_else(|| refuse(&token, ENDPOINT.to_owned()));
            Condition::Endpoint(*end, pattern?)
        } else if let Some((_, name)) = Property::NAMES.iter().find(|(word, _)| find(*word)) {
            Condition::Name(*name, self.name()?)
        } else if let Some((_, time)) = Property::TIMES.iter().find(|(word, _)| find(*word)) {
            self.time(*time)?
        } else if let Some(pattern) = endpoint(token.text) {
            Condition::Endpoint(End::Any, pattern)
        } else {
            let advice = advise(token.text, words());
            return Err(refuse(&token, format!("a word of the language or an address; {advice}")));
        };
        Ok(FilterExpression::Is(condition))
    }

    fn protocol(&mut self) -> Result<Condition, FilterError> {
        let token = self.next("a number from 0 to 255")?;
        let number = token.text.parse();
        let number = number.map_err(|_| refuse(&token, "a number from 0 to 255".to_owned()))?;
        Ok(Condition::Protocol(Protocol(number)))
    }

    fn name(&mut self) -> Result<String, FilterError> {
        let token = self.next("a name")?;
        match token.text.starts_with(|c| "()<>=".contains(c)) {
            true => Err(refuse(&token, "a name".to_owned())),
            false => Ok(token.text.to_owned()),
        }
    }

    fn time(&mut self, time: Property) -> Result<Condition, FilterError> {
        let token = self.next(COMPARISON)?;
        let comparison = match token.text {
            "under" => Comparison::Less,
            "over" => Comparison::Greater,
            sign => {
                let found = Comparison::SIGNS.iter().find(|(known, _)| *known == sign);
                found.ok_or_else(|| refuse(&token, COMPARISON.to_owned()))?.1
            }
        };
        let token = self.next(DURATION)?;
        let limit = duration(token.text).ok_or_else(|| refuse(&token, DURATION.to_owned()))?;
        Ok(Condition::Time(time, comparison, limit))
    }
}

fn single_or(
    mut filters: Vec<FilterExpression>,
    many: fn(Vec<FilterExpression>) -> FilterExpression,
) -> FilterExpression {
    match filters.len() {
        1 => filters.remove(0),
        _ => many(filters),
    }
}

fn refuse(token: &Token<'_>, wanted: String) -> FilterError {
    FilterError { column: token.column, found: format!("`{}`", token.text), wanted }
}

/// Lists every word of the language.
fn words() -> impl Iterator<Item = &'static str> + Clone {
    let protocols = PROTOCOLS.iter().map(|(word, _)| *word);
    let ends = End::WORDS.iter().map(|(word, _)| *word);
    let names = Property::NAMES.iter().map(|(word, _)| *word);
    let times = Property::TIMES.iter().map(|(word, _)| *word);
    ["protocol", "and", "or", "not"]
        .into_iter()
        .chain(protocols)
        .chain(ends)
        .chain(names)
        .chain(times)
}

/// Reads `10.0.0.0/8`, `10.0.0.9:80`, `:1000-2000` and the like.
fn endpoint(text: &str) -> Option<EndpointPattern> {
    let (address, ports) = match text.split_once(':') {
        Some((address, ports)) => (address, Some(self::ports(ports)?)),
        None => (text, None),
    };
    let network = match (address, &ports) {
        ("", Some(_)) => None,
        ("", None) => return None,
        _ => Some(network(address)?),
    };
    Some(EndpointPattern { network, ports })
}

fn network(text: &str) -> Option<Ipv4Net> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Some(Ipv4Net::from(address)),
        Err(_) => text.parse::<Ipv4Net>().ok().map(|network| network.trunc()),
    }
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Reads `90s`, `5m`, `2h`, `1d`, or a number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

const ENDPOINT: &str =
    "an address, a prefix, or either with ports, such as `10.0.0.0/8:1000-2000` or `:443`";
const COMPARISON: &str = "`<`, `<=`, `>`, `>=`, `=`, `under` or `over`";
const DURATION: &str = "a duration such as `90s`, `5m`, `2h` or `1d`";
/// Most brackets and `not` in one another: the parser is recursive.
const MAX_DEPTH: usize = 64;
