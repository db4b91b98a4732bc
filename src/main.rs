//! The `natbox` binary: runs [`natbox::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    natbox::cli::main()
}
