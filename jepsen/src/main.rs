//! Command line of the fault injection: `seriatim-jepsen run --sim --seeds 0..100`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
