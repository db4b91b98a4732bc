//! Any bytes of a client of the admin socket: each line is read as the protocol says.

use natbox::api::{MAX_REQUEST, Request};
use natbox::fuzzing::{AdminInput, admin_inputs};

/// Reads the bytes of a connection.
///
/// # Panics
/// If a line is lost, joined or split, or a request does not survive being printed.
pub fn run(data: &[u8]) {
    let mut inputs = admin_inputs(data).into_iter();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match inputs.next().expect("an input for each line") {
            AdminInput::TooLong => {
                assert!(
                    line.len() as u64 > MAX_REQUEST || is_cut(line),
                    "a short line is rejected"
                );
                assert!(inputs.next().is_none(), "the instance reads no further");
                return;
            }
            AdminInput::Line(read) => {
                assert!(line.len() as u64 <= MAX_REQUEST, "a long line is read");
                match (read, Request::from_json(line)) {
                    (Ok(read), Ok(alone)) => {
                        assert_eq!(read, alone, "a line means the same alone");
                        let again = Request::from_json(read.to_json().as_bytes());
                        assert_eq!(again.expect("natbox printed it"), read);
                    }
                    (Err(read), Err(alone)) => assert_eq!(read.to_string(), alone.to_string()),
                    (read, alone) => panic!("{read:?} in its connection, {alone:?} alone"),
                }
            }
        }
    }
    assert!(inputs.next().is_none(), "an input without a line");
}

/// Reports whether the end of the connection cuts a line that is as long as a request may be.
fn is_cut(line: &[u8]) -> bool {
    line.len() as u64 == MAX_REQUEST && line.last() != Some(&b'\n')
}
