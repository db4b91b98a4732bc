//! Answers on the admin socket: one JSON object a line.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::api::Refusal;

/// Returns an answer as JSON, or an error as the rejection of its request.
pub(super) fn answer<T: serde::Serialize, E: std::fmt::Display>(outcome: Result<T, E>) -> Vec<u8> {
    match outcome {
        Ok(answer) => to_json(&answer),
        Err(error) => refusal(&error),
    }
}

/// Writes an answer and the line end.
pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut answer: Vec<u8>,
) -> io::Result<()> {
    answer.push(b'\n');
    writer.write_all(&answer).await
}

/// Returns the rejection of a request as JSON.
pub(super) fn refusal(error: &dyn std::fmt::Display) -> Vec<u8> {
    to_json(&Refusal { error: error.to_string() })
}

/// Returns a value as JSON.
pub(super) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs with string keys always serialise")
}
