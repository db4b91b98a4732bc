//! Values read from the bytes of a fuzzer.

/// The bytes that are not read yet. Every value can be read at any time: after the last byte, all
/// further bytes are zero.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Reports whether all bytes are read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Reads a number of two bytes.
    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Reads a number of four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from(self.number()) << 16 | u32::from(self.number())
    }

    /// Reads a number below `limit`, at most 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// Reads an event that happens once in `times`, at most 256.
    pub fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    /// Reads one of several values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Reads up to `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Reads all bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(self.0.len())
    }
}

/// Changes some bytes of a message, or its length, as the input says.
pub fn damage(message: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..=input.below(4) {
        if message.is_empty() {
            return;
        }
        let at = usize::from(input.number()) % message.len();
        match input.below(8) {
            0 => message.truncate(at),
            1 => message.insert(at, input.byte()),
            2 => drop(message.remove(at)),
            3 => message[at] = input.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            4 => message[at] = message[at].wrapping_add(input.byte()),
            5 => {
                let rest = message.split_off(at);
                message.extend(rest.iter().rev());
            }
            6 => message[at] ^= 1 << (input.byte() % 8),
            _ => message[at] = input.byte(),
        }
    }
}
