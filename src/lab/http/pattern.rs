//! The bytes that `/bytes/N` is made of.

use std::sync::LazyLock;

/// Length after which the bytes repeat. A prime, so that no displacement by a segment, a buffer or a power of two
/// goes unnoticed.
const PERIOD: usize = 65_521;

/// Twice the period: from any place within the first, a whole period can be had in one chunk.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // xorshift32; any fixed sequence without short repetitions will do.
    let mut state = 0x6e61_7462_u32;
    let mut period: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(PERIOD)
    .collect();
    period.extend_from_within(..);
    period
});

/// A place in the endless pattern.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    position: usize,
}

impl Pattern {
    /// The beginning.
    pub fn new() -> Pattern {
        Pattern::default()
    }

    /// The next bytes in one chunk, at least one and at most `limit`, which is positive; moves on past them.
    pub fn next(&mut self, limit: usize) -> &'static [u8] {
        let start = self.position;
        let length = limit.min(PERIOD);
        self.position = (start + length) % PERIOD;
        &BYTES[start..start + length]
    }

    /// Whether `bytes` are the next ones; moves on past them.
    pub fn matches(&mut self, bytes: &[u8]) -> bool {
        bytes.chunks(PERIOD).all(|chunk| self.next(chunk.len()) == chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_any_size_make_the_same_stream() {
        let (mut writer, mut reader) = (Pattern::new(), Pattern::new());
        let mut stream = Vec::new();
        for size in [1, 1448, 65_521, 7, 65_536, 3000] {
            let mut left = size;
            while left > 0 {
                let chunk = writer.next(left);
                stream.extend_from_slice(chunk);
                left -= chunk.len();
            }
        }
        assert!(stream.chunks(4096).all(|chunk| reader.matches(chunk)));
    }

    #[test]
    fn a_displaced_stream_does_not_match() {
        let mut writer = Pattern::new();
        let stream = writer.next(10_000);
        assert!(!Pattern::new().matches(&stream[1448..4000]));
    }
}
