//! Requests of the admin protocol, and the answer to a request that is not served.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sessions::SessionCursor;

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
    /// Asks for an [`super::Explanation`]: what would happen to a packet. Nothing happens to any.
    Explain {
        /// The first bytes of an IPv4 packet in hexadecimal, at most [`MAX_EXPLAINED`] of them.
        packet: String,
        /// Length of the packet in bytes. Zeros follow the bytes of `packet`.
        length: u16,
    },
    /// Makes the instance read its configuration file again. The answer is a [`super::Reloaded`].
    Reload,
}

/// What a request needs of the user that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The request changes nothing.
    Read,
    /// The request changes the instance.
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
            | Self::EffectiveConfig
            | Self::Events { .. }
            | Self::Explain { .. } => Access::Read,
            Self::Reload => Access::Change,
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
            Request::Sessions { from: SessionCursor::default() },
            Request::EffectiveConfig,
            Request::Events { follow: true },
            Request::Explain { packet: "4500".to_owned(), length: 40 },
            Request::Reload,
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
