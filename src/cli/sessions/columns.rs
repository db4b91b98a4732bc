//! The columns of a listing.

use std::cmp::Ordering;
use std::net::SocketAddrV4;

use clap::ValueEnum;

use crate::api::{SessionTraffic, SessionView};

/// A column of `natbox sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    /// Identifier
    Id,
    /// Protocol
    Protocol,
    /// Endpoint that opened the session
    Client,
    /// External endpoint of the inside end
    Published,
    /// Endpoint that answers
    Server,
    /// Uplink
    Uplink,
    /// Forward that the session uses
    Forward,
    /// State
    State,
    /// Time since the start
    Age,
    /// Time since the last packet
    Idle,
    /// Time until the session ends if no packet arrives
    Expires,
    /// Kind of the session
    Origin,
    /// Packets of the client's side
    Packets,
    /// Bytes of the client's side
    Bytes,
    /// Packets of the server's side
    ReplyPackets,
    /// Bytes of the server's side
    ReplyBytes,
    /// Bytes of both sides
    TotalBytes,
    /// Bytes a second of both sides, as the average since the start
    Rate,
}

impl Column {
    /// The columns of a listing without `--columns`.
    pub(super) const DEFAULT: [Self; 9] = [
        Self::Protocol,
        Self::Client,
        Self::Published,
        Self::Server,
        Self::Uplink,
        Self::State,
        Self::Idle,
        Self::Expires,
        Self::Origin,
    ];

    /// Reports whether the column needs `limits.accounting`.
    pub(super) fn needs_accounting(self) -> bool {
        matches!(
            self,
            Self::Age
                | Self::Packets
                | Self::Bytes
                | Self::ReplyPackets
                | Self::ReplyBytes
                | Self::TotalBytes
                | Self::Rate
        )
    }

    fn title(self) -> String {
        self.to_possible_value().expect("no column is hidden").get_name().to_uppercase()
    }

    /// Width in characters, and whether the values stand on the right.
    fn format(self) -> (usize, bool) {
        match self {
            Self::Protocol => (5, false),
            Self::Client | Self::Published | Self::Server => (21, false),
            Self::Uplink | Self::Forward => (8, false),
            Self::State => (11, false),
            Self::Origin => (16, false),
            Self::Age | Self::Idle | Self::Expires => (7, true),
            Self::Packets => (8, true),
            Self::Bytes | Self::Rate => (10, true),
            Self::ReplyPackets => (13, true),
            Self::ReplyBytes | Self::TotalBytes => (11, true),
            Self::Id => (16, true),
        }
    }

    fn value(self, session: &SessionView) -> String {
        let text = match self {
            Self::Id => return session.id.to_string(),
            Self::Protocol => &session.protocol,
            Self::Client => &session.client,
            Self::Published => &session.published,
            Self::Server => &session.server,
            Self::Uplink => &session.uplink,
            Self::Forward => session.forward.as_ref().map_or("-", String::as_str),
            Self::State => &session.state,
            Self::Origin => &session.origin,
            Self::Age | Self::Idle | Self::Expires => {
                return self.number(session).map_or_else(unknown, |seconds| format!("{seconds}s"));
            }
            Self::Packets
            | Self::Bytes
            | Self::ReplyPackets
            | Self::ReplyBytes
            | Self::TotalBytes
            | Self::Rate => {
                return self.number(session).map_or_else(unknown, |number| number.to_string());
            }
        };
        text.to_owned()
    }

    /// The value of a column of numbers.
    fn number(self, session: &SessionView) -> Option<u64> {
        let traffic = session.traffic;
        match self {
            Self::Id => Some(session.id),
            Self::Idle => Some(session.idle_seconds.into()),
            Self::Expires => Some(session.expires_in_seconds.into()),
            Self::Age => Some(traffic?.age_seconds.into()),
            Self::Packets => Some(traffic?.packets),
            Self::Bytes => Some(traffic?.bytes),
            Self::ReplyPackets => Some(traffic?.reply_packets),
            Self::ReplyBytes => Some(traffic?.reply_bytes),
            Self::TotalBytes => Some(traffic?.bytes + traffic?.reply_bytes),
            Self::Rate => Some(rate(&traffic?)),
            Self::Protocol
            | Self::Client
            | Self::Published
            | Self::Server
            | Self::Uplink
            | Self::Forward
            | Self::State
            | Self::Origin => None,
        }
    }

    /// Compares two sessions by this column: larger numbers first, words and addresses ascending.
    pub(super) fn compare(self, first: &SessionView, second: &SessionView) -> Ordering {
        let endpoint = |session| self.value(session).parse::<SocketAddrV4>().ok();
        if let Self::Client | Self::Published | Self::Server = self {
            return endpoint(first).cmp(&endpoint(second));
        }
        match (self.number(first), self.number(second)) {
            (None, None) => self.value(first).cmp(&self.value(second)),
            (first, second) => second.cmp(&first),
        }
    }
}

/// Bytes a second, both ways, since the start.
fn rate(traffic: &SessionTraffic) -> u64 {
    (traffic.bytes + traffic.reply_bytes) / u64::from(traffic.age_seconds.max(1))
}

fn unknown() -> String {
    "-".to_owned()
}

/// Returns the titles of columns as one line.
pub(super) fn titles(columns: &[Column]) -> String {
    line(columns, |column| column.title())
}

/// Returns the values of columns as one line.
pub(super) fn row(columns: &[Column], session: &SessionView) -> String {
    line(columns, |column| column.value(session))
}

fn line(columns: &[Column], text: impl Fn(Column) -> String) -> String {
    let cells = columns.iter().map(|column| {
        let (text, (width, right)) = (text(*column), column.format());
        if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}
