//! The bytes of `/bytes/N`.

use std::sync::LazyLock;

/// Length after which the bytes repeat. The length is a prime, so that a displacement by a segment,
/// a buffer or a power of two is always detected.
const PERIOD: usize = 65_521;

/// Twice the period: from every position within the first period, one chunk can hold a whole
/// period.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // xorshift32; any fixed sequence without short repetitions would do.
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

/// A position in the endless pattern.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    position: usize,
}

impl Pattern {
    /// Returns the beginning of the pattern.
    pub fn new() -> Pattern {
        Pattern::default()
    }

    /// Returns the next bytes in one chunk, at least one and at most `limit`, and advances past
    /// them. `limit` is positive.
    pub fn next(&mut self, limit: usize) -> &'static [u8] {
        let start = self.position;
        let length = limit.min(PERIOD);
        self.position = (start + length) % PERIOD;
        &BYTES[start..start + length]
    }

    /// Returns whether `bytes` are the next ones, and advances past them.
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
