//! The filter language: one grammar for every command that selects sessions or packets.
//!
//! ```text
//!   filter     = or
//!   or         = and { "or" and }
//!   and        = not { [ "and" ] not }
//!   not        = "not" not | "(" or ")" | condition
//!   condition  = protocol | "protocol" number
//!              | [ end ] endpoint
//!              | ( "uplink" | "forward" | "state" | "origin" ) name
//!              | ( "idle" | "age" | "expires" ) comparison duration
//!   end        = "from" | "to" | "client" | "server" | "published" | "inside" | "outside"
//!   endpoint   = address [ "/" length ] [ ":" ports ] | ":" ports
//!   ports      = port [ "-" port ]
//!   comparison = "<" | "<=" | ">" | ">=" | "=" | "under" | "over"
//! ```
//!
//! An empty filter matches everything. A condition on something that the subject does not have (the
//! forward of an outbound session, for example) does not match.

mod condition;
mod expression;
mod lexer;
mod names;
mod parser;
mod subject;

pub(crate) use expression::FilterExpression;
pub(crate) use names::KnownNames;
pub(crate) use subject::Subject;

#[cfg(test)]
mod tests;
