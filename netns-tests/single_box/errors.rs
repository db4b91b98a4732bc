//! ICMP errors that arrive in a namespace, and a check for private addresses on the way.

use std::net::Ipv4Addr;
use std::sync::Arc;

use natbox::lab::Namespace;
use natbox::lab::capture::{Capture, ICMP, Ipv4Packet};
use parking_lot::Mutex;

use super::eventually;

/// One ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// Next-hop MTU of "fragmentation needed"; otherwise 0.
    pub mtu: u16,
    /// Source and destination of the quoted packet.
    pub quoted: (Ipv4Addr, Ipv4Addr),
    /// Ports of the quoted packet.
    pub ports: (u16, u16),
}

/// A capture of the ICMP errors that a namespace receives.
pub(crate) struct ErrorWatch {
    seen: Arc<Mutex<Vec<IcmpError>>>,
    private: Arc<Mutex<Vec<String>>>,
    capture: Capture,
}

impl ErrorWatch {
    pub(crate) fn start(namespace: &Namespace) -> ErrorWatch {
        let (seen, private) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (errors, addresses) = (seen.clone(), private.clone());
        let capture = Capture::start(namespace, move |frame| {
            let Some(packet) = frame.ipv4() else { return };
            let error = error(&packet);
            let quoted = error.as_ref().map(|error| error.quoted);
            let shown = [packet.source(), packet.destination()]
                .into_iter()
                .chain(quoted.map(|(source, _)| source));
            let shown = shown.chain(quoted.map(|(_, destination)| destination));
            if shown.into_iter().any(|address| address.is_private() || address.is_link_local()) {
                addresses.lock().push(format!("{packet:?}"));
            }
            errors.lock().extend(error);
        })
        .unwrap();
        ErrorWatch { seen, private, capture }
    }

    /// Waits for an ICMP error.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&IcmpError) -> bool) -> IcmpError {
        let found = || self.seen.lock().iter().find(|error| wanted(error)).cloned();
        eventually(&format!("{what}; seen: {:?}", self.seen.lock()), found)
    }

    /// Discards the errors captured so far.
    pub(crate) fn forget(&self) {
        self.seen.lock().clear();
    }

    /// Stops. Fails if a packet that arrived here contained a private address.
    #[track_caller]
    pub(crate) fn assert_nothing_private(self) {
        drop(self.capture);
        let private = self.private.lock();
        assert!(private.is_empty(), "private addresses outside: {private:?}");
    }
}

fn error(packet: &Ipv4Packet<'_>) -> Option<IcmpError> {
    let message = packet.payload();
    let is_error = packet.protocol() == ICMP && matches!(message.first()?, 3 | 5 | 11 | 12);
    let quote = message.get(8..).filter(|_| is_error)?;
    let address = |at: usize| -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(quote.get(at..at + 4)?).ok()?))
    };
    let transport = quote.get(usize::from(quote.first()? & 15) * 4..)?;
    let number = |bytes: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    };
    Some(IcmpError {
        kind: message[0],
        code: message[1],
        source: packet.source(),
        destination: packet.destination(),
        mtu: number(message, 6)?,
        quoted: (address(12)?, address(16)?),
        ports: (number(transport, 0)?, number(transport, 2)?),
    })
}
