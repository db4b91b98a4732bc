//! The option lists of IP and TCP headers: kind, length and value, with the same two single-byte
//! kinds.

/// Ends the list.
const END: u8 = 0;
/// Fills a byte.
const NO_OPERATION: u8 = 1;

/// The length of an option is below 2, or the option extends beyond the end of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidLength;

/// The position of an option in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionRef {
    /// The kind byte, never one of the single-byte kinds.
    pub(crate) kind: u8,
    /// Offset of the kind byte.
    pub(crate) start: usize,
    /// Length of kind, length and value together, in bytes: at least 2, and within the list.
    pub(crate) length: usize,
}

/// Returns the first option at or after offset `at`. `None` at the end of the list.
pub(crate) fn next(options: &[u8], mut at: usize) -> Result<Option<OptionRef>, InvalidLength> {
    loop {
        match options.get(at).copied() {
            None | Some(END) => return Ok(None),
            Some(NO_OPERATION) => at += 1,
            Some(kind) => {
                let length = usize::from(*options.get(at + 1).ok_or(InvalidLength)?);
                if length < 2 || length > options.len() - at {
                    return Err(InvalidLength);
                }
                return Ok(Some(OptionRef { kind, start: at, length }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operation_is_skipped_and_end_of_list_ends_the_list() {
        let options = [1, 1, 7, 3, 9, 1, 0, 7, 3, 9];
        assert_eq!(next(&options, 0), Ok(Some(OptionRef { kind: 7, start: 2, length: 3 })));
        assert_eq!(next(&options, 5), Ok(None));
        assert_eq!(next(&[], 0), Ok(None));
    }

    #[test]
    fn bad_lengths_are_errors() {
        for options in [&[7][..], &[7, 0], &[7, 1], &[1, 7, 3], &[1, 1, 7]] {
            assert_eq!(next(options, 0), Err(InvalidLength), "{options:?}");
        }
    }
}
