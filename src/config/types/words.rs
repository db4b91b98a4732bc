//! The words that the file has for the values of enums; read and written from the same table.

use std::fmt;

use crate::dns::{Algorithm, Replace};

use crate::config::model::{
    AddressPooling, EndpointDependence, Failback, ForwardProtocol, HashBy, IoBackend, LogFormat,
    LogLevel, OffloadLimit, OnFailure, RejectWith, UnsolicitedSyn,
};

/// An enum whose values are words in the file.
pub trait ConfigEnum: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The word for this value.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl ConfigEnum for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.word())
            }
        }
    };
}

words!(IoBackend { Auto = "auto", Uring = "uring", Poll = "poll" });
words!(OffloadLimit { Auto = "auto", TsoUso = "tso+uso", Tso = "tso", Checksum = "checksum", None = "none" });
words!(ForwardProtocol { Tcp = "tcp", Udp = "udp", TcpUdp = "tcp+udp", Icmp = "icmp", Any = "any" });
words!(OnFailure { Keep = "keep", Drain = "drain", Reset = "reset" });
words!(Failback { NewSessions = "new-sessions", Reset = "reset" });
words!(HashBy { SourcePort = "source-port", SourceAddress = "source-address" });
words!(EndpointDependence {
    EndpointIndependent = "endpoint-independent",
    AddressDependent = "address-dependent",
    AddressAndPortDependent = "address-and-port-dependent",
});
words!(AddressPooling { Paired = "paired", PairedSoft = "paired-soft" });
words!(RejectWith { AdminProhibited = "admin-prohibited", HostUnreachable = "host-unreachable", None = "none" });
words!(UnsolicitedSyn { Drop = "drop", DelayedReject = "delayed-reject" });
words!(LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" });
words!(Algorithm { HmacSha256 = "hmac-sha256", HmacSha512 = "hmac-sha512" });
words!(Replace { All = "all", Own = "own" });
words!(LogFormat { Text = "text", Json = "json" });
