//! `natbox confirm`: makes the configuration of an unconfirmed reload stay.

use std::process::ExitCode;

use clap::Args;

use super::exit::Failure;
use super::target::InstanceQuery;
use crate::api::{Confirmed, Request};

/// Arguments of `natbox confirm`.
#[derive(Debug, Args)]
pub(super) struct ConfirmArguments {
    #[command(flatten)]
    query: InstanceQuery,
}

/// Confirms the reload, and prints the keys that stay.
///
/// # Errors
/// An environment error when no instance answers. A user error when no reload waits for its
/// confirmation.
pub(super) fn run(arguments: &ConfirmArguments) -> Result<ExitCode, Failure> {
    arguments.query.show(&Request::Confirm, |Confirmed { changed }| {
        format!("confirmed: {}", changed.join(", "))
    })?;
    Ok(ExitCode::SUCCESS)
}
