//! Requests of the admin protocol, and the answer to a request that is not served.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sessions::{SessionCursor, SessionGroup};

/// Version of the admin protocol. It grows when an existing request or answer changes its meaning.
pub const VERSION: u64 = 1;

/// Longest request line, in bytes.
pub const MAX_REQUEST: u64 = 4096;

/// Most bytes of a packet in [`Request::Explain`].
pub const MAX_EXPLAINED: usize = 1900;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Asks for a [`super::Status`].
    Status,
    /// Asks for a [`super::SessionPage`].
    Sessions {
        /// Start of the page.
        #[serde(default)]
        from: SessionCursor,
        /// Filter that the sessions match, in the language of `docs/guide/filters.md`.
        #[serde(default)]
        filter: String,
    },
    /// Asks for a [`super::SessionCount`].
    CountSessions {
        /// Start of the part of the table that is counted.
        #[serde(default)]
        from: SessionCursor,
        /// As for [`Self::Sessions`].
        #[serde(default)]
        filter: String,
        /// Property by which the sessions are grouped.
        #[serde(default)]
        group_by: Option<SessionGroup>,
    },
    /// Asks for the changes of sessions from now on: an answer of many lines, each a
    /// [`super::SessionChanged`].
    SessionEvents {
        /// As for [`Self::Sessions`].
        #[serde(default)]
        filter: String,
    },
    /// Ends sessions. The answer has many lines, each a [`super::KilledSessions`]. If the client
    /// closes the connection, the other sessions stay.
    KillSessions {
        /// As for [`Self::Sessions`].
        filter: String,
        /// Largest number of sessions to end. None: no limit.
        #[serde(default)]
        max: Option<u64>,
        /// True: the inside hosts receive neither resets nor ICMP errors.
        #[serde(default)]
        silent: bool,
    },
    /// Asks for an [`super::EffectiveConfig`].
    EffectiveConfig,
    /// Asks for events: an answer of many lines, each a [`super::Event`]. The connection ends after
    /// the last.
    Events {
        /// True: new events follow the recent ones until the instance ends.
        #[serde(default)]
        follow: bool,
    },
    /// Asks for a [`super::DropReport`].
    Drops {
        /// Filter of the examples; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// Asks for live packets: an answer of many lines, each a [`super::TraceLine`]. The trace ends
    /// with the connection.
    Trace {
        /// Filter of the packets; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// Asks for an [`super::Explanation`]: what would happen to a packet. Nothing happens to any.
    Explain {
        /// The first bytes of an IPv4 packet in hexadecimal, at most [`MAX_EXPLAINED`] of them.
        packet: String,
        /// Length of the packet in bytes. Zeros follow the bytes of `packet`.
        length: u16,
    },
    /// Makes the instance read its configuration file again. The answer is a [`super::Reloaded`].
    Reload,
    /// As [`Request::Reload`], but the instance goes back to the configuration before, unless
    /// [`Request::Confirm`] follows in time.
    ReloadUnconfirmed {
        /// Time for the confirmation, in seconds.
        confirm_seconds: u64,
    },
    /// Makes the configuration of an unconfirmed reload stay. The answer is a [`super::Confirmed`].
    Confirm,
    /// Goes back at once to the configuration before an unconfirmed reload. The answer is a
    /// [`super::Reloaded`].
    RevertReload,
    /// Asks what a reload would change: a [`super::Difference`].
    Difference,
}

/// What a request needs of the user that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The request changes nothing.
    Read,
    /// The request changes the instance, or shows what hosts send to each other while it costs the
    /// workers time.
    Change,
}

/// The answer to a request that the instance does not serve.
///
/// An object with further fields is no [`Refusal`]: the event [`super::EventKind::ReloadFailed`]
/// has an `error` among its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Reason, for a person.
    pub error: String,
}

/// Reason why a line is not a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The line is not JSON, or no known request.
    #[error("not a request: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The client uses another version of the protocol.
    #[error(
        "api_version: found {found}, wanted {VERSION}; use the natbox command of the running version"
    )]
    Version {
        /// Version that the client sent.
        found: Value,
    },
}

impl Request {
    /// Returns what the request needs of its user.
    pub fn access(&self) -> Access {
        match self {
            Self::Status
            | Self::Sessions { .. }
            | Self::CountSessions { .. }
            | Self::SessionEvents { .. }
            | Self::EffectiveConfig
            | Self::Events { .. }
            | Self::Drops { .. }
            | Self::Explain { .. }
            | Self::Difference => Access::Read,
            Self::KillSessions { .. }
            | Self::Trace { .. }
            | Self::Reload
            | Self::ReloadUnconfirmed { .. }
            | Self::Confirm
            | Self::RevertReload => Access::Change,
        }
    }

    /// Returns whether the instance may walk all sessions before it answers.
    pub fn takes_long(&self) -> bool {
        match self {
            Self::Status
            | Self::Sessions { .. }
            | Self::CountSessions { .. }
            | Self::SessionEvents { .. }
            | Self::EffectiveConfig
            | Self::Events { .. }
            | Self::Drops { .. }
            | Self::Trace { .. }
            | Self::Explain { .. }
            | Self::Confirm => false,
            Self::KillSessions { .. }
            | Self::Reload
            | Self::ReloadUnconfirmed { .. }
            | Self::RevertReload
            | Self::Difference => true,
        }
    }

    /// Returns the request as JSON with the version of the protocol, without a line end.
    pub fn to_json(&self) -> String {
        let mut object = serde_json::to_value(self).expect("a request always serialises");
        object[VERSION_KEY] = VERSION.into();
        object.to_string()
    }

    /// Reads a request. A request without a version counts as one of [`VERSION`].
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn from_json(line: &[u8]) -> Result<Self, RequestError> {
        let mut value: Value = serde_json::from_slice(line)?;
        let found = value.as_object_mut().and_then(|object| object.remove(VERSION_KEY));
        match found {
            Some(found) if found != VERSION => Err(RequestError::Version { found }),
            Some(_) | None => Ok(serde_json::from_value(value)?),
        }
    }
}

/// Key of the version in a request.
const VERSION_KEY: &str = "api_version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_with_and_without_a_version() {
        let requests = [
            Request::Status,
            Request::Sessions { from: SessionCursor::default(), filter: "tcp".into() },
            Request::CountSessions {
                from: SessionCursor { pool: 1, record: 7 },
                filter: String::new(),
                group_by: Some(SessionGroup::Client),
            },
            Request::SessionEvents { filter: "not icmp".into() },
            Request::KillSessions { filter: "udp".into(), max: Some(7), silent: true },
            Request::EffectiveConfig,
            Request::Events { follow: true },
            Request::Drops { filter: "tcp to :443".to_owned() },
            Request::Trace { filter: "tcp to :443".to_owned() },
            Request::Explain { packet: "4500".to_owned(), length: 40 },
            Request::Reload,
            Request::ReloadUnconfirmed { confirm_seconds: 60 },
            Request::Confirm,
            Request::RevertReload,
            Request::Difference,
        ];
        for request in requests {
            let text = request.to_json();
            assert!(text.contains(r#""api_version":1"#), "{text}");
            assert_eq!(Request::from_json(text.as_bytes()).unwrap(), request);
            let plain = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::from_json(&plain).unwrap(), request);
        }
    }

    #[test]
    fn the_longest_packet_to_explain_fits_into_a_request() {
        let packet = "f".repeat(2 * MAX_EXPLAINED);
        let request = Request::Explain { packet, length: u16::MAX };
        assert!((request.to_json().len() as u64) < MAX_REQUEST);
    }

    #[test]
    fn another_version_is_refused_with_both_versions() {
        let error = Request::from_json(br#"{"api_version":2,"command":"status"}"#).unwrap_err();
        assert!(error.to_string().starts_with("api_version: found 2, wanted 1;"), "{error}");
    }

    #[test]
    fn unknown_commands_and_unknown_keys_are_refused() {
        for line in
            ["{}", "[]", "7", "status", r#"{"command":"x"}"#, r#"{"command":"events","x":1}"#]
        {
            let error = Request::from_json(line.as_bytes()).unwrap_err();
            assert!(matches!(error, RequestError::Malformed(_)), "{line}: {error}");
        }
    }
}
