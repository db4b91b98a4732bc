//! The `natbox` binary: hands over to [`natbox::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    natbox::cli::main()
}
