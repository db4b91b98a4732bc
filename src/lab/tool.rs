//! iproute2 commands.

use std::process::{Command, Output, Stdio};

use super::error::LabError;

/// Gives a command a process group of its own and no standard input.
pub(super) fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.stdin(Stdio::null()).process_group(0);
}

/// Runs an iproute2 command to its end.
pub(super) fn run_tool(command: &mut Command) -> Result<Output, LabError> {
    own_group(command);
    let output = command.output().map_err(|source| LabError::NoProgram {
        program: command.get_program().to_string_lossy().into_owned(),
        package: "iproute2",
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(LabError::Command {
        command: command_line(command),
        status: output.status.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Formats a command as a shell would take it, without quoting: the lab's arguments have no spaces.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
