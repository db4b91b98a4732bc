//! The counters of the name server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// Counters since the start, shared between the name server and its readers.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[doc = $doc])+ pub(super) $name: Counter),+
        }

        impl Counters {
            /// Returns every counter by its name.
            pub(crate) fn values(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name).to_owned(), self.$name.value())),+].into()
            }
        }
    };
}

counters! {
    /// Messages received, by UDP and by TCP.
    queries,
    /// Answers sent in full, refusals included.
    answers,
    /// Answers truncated because of their size, so that the client queries by TCP.
    oversized,
    /// Answers above the limit of their source that were truncated to the query.
    limited_truncated,
    /// Answers above the limit of their source that were not sent.
    limited_dropped,
    /// Messages that are no queries and get no answer.
    ignored,
    /// TCP connections accepted.
    connections,
    /// TCP connections closed at once because there were too many.
    connections_refused,
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn count(&self) {
        // Relaxed: a counter orders nothing.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        // Relaxed: as in count().
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_every_counter() {
        let guide = include_str!("../../docs/guide/dns.md");
        for name in Counters::default().values().keys() {
            assert!(guide.contains(&format!("| `{name}` | ")), "{name}");
        }
    }
}
