//! The framing of the admin socket, for fuzz targets.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::api::{Request, RequestError};

use super::admin::{RequestLine, next_line};

/// What the admin socket reads of a connection.
#[derive(Debug)]
pub enum AdminInput {
    /// A line within the limit, read as a request.
    Line(Result<Request, RequestError>),
    /// A line that is too long. The instance reads no further.
    TooLong,
}

/// Reads all bytes that a client sends in one connection, as the admin socket does.
pub fn admin_inputs(mut bytes: &[u8]) -> Vec<AdminInput> {
    let read_all = async {
        let mut inputs = Vec::new();
        loop {
            match next_line(&mut bytes).await.expect("memory does not fail") {
                RequestLine::End => return inputs,
                RequestLine::TooLong => {
                    inputs.push(AdminInput::TooLong);
                    return inputs;
                }
                RequestLine::Whole(line) => {
                    inputs.push(AdminInput::Line(Request::from_json(&line)));
                }
            }
        }
    };
    match pin!(read_all).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(inputs) => inputs,
        Poll::Pending => unreachable!("bytes in memory are always there"),
    }
}
