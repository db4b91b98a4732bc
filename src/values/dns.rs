//! Values of the name server and of its updates.

pub(crate) use hickory_proto::rr::Name;

/// Algorithms of TSIG that natbox implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// hmac-sha256
    HmacSha256,
    /// hmac-sha512
    HmacSha512,
}

/// Which records an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// All addresses of a name: this instance alone publishes it. If every uplink is down, an
    /// update contains all addresses.
    All,
    /// The addresses of this instance: others publish the same name. If every uplink is down, an
    /// update contains none.
    Own,
}
