//! Any answer of another name server to an update: natbox believes only the whole answer of a
//! server that has the key.

use natbox::fuzzing::UpdateExchange;

use super::input::{Input, damage};

/// Sends an update and answers it.
///
/// # Panics
/// If natbox believes an answer that is not signed, or rejects a right one.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let exchange = UpdateExchange::new();
    let code = u16::from(input.byte() % 16);
    let right = exchange.signed_answer(code, 0, 0);
    let (mut answer, is_right) = match input.below(8) {
        0 => (exchange.bare_answer(code), false),
        1 => {
            let late = i32::from(input.number() as i16);
            (exchange.signed_answer(code, late, 0), late.abs() < 300)
        }
        2 => (exchange.signed_answer(code, 0, input.pick(&[16, 17, 18, 22, 999])), false),
        3 => (input.rest().to_vec(), false),
        4 => (UpdateExchange::new().signed_answer(code, 0, 0), false),
        5 => (right.clone(), true),
        _ => {
            let mut answer = right.clone();
            damage(&mut answer, &mut input);
            (answer, false)
        }
    };
    let mut stream = (answer.len() as u16).to_be_bytes().to_vec();
    stream.extend(&answer);
    let is_cut = input.once_in(4);
    if is_cut {
        stream.truncate(usize::from(input.number()) % stream.len());
    }
    let result = exchange.accept(&stream);
    if is_right && !is_cut {
        assert_eq!(result.is_ok(), code == 0, "{result:?}");
    } else if result.is_ok() {
        // The signature covers all but itself. The case of its names does not matter, nor the
        // reserved bit of the header: the library drops it before it checks the signature.
        let signed = right.len() - SIGNATURE;
        assert!(!is_cut && code == 0, "an answer that is cut is believed");
        answer[RESERVED_BYTE] &= !RESERVED_BIT;
        assert_eq!(answer[..signed], right[..signed], "an answer that was changed is believed");
    }
}

/// Byte of the header with [`RESERVED_BIT`].
const RESERVED_BYTE: usize = 3;
/// The bit Z of the header (RFC 1035, section 4.1.1), which has no meaning.
const RESERVED_BIT: u8 = 0x40;
/// Bytes of the record of the signature: name, type, class, TTL, length; algorithm, time, fudge,
/// MAC with its length, identifier, error, other data with its length.
const SIGNATURE: usize = 3 + 10 + 13 + 6 + 2 + 2 + 32 + 2 + 2 + 2;
