//! Command line of the fault injection: `seriatim-jepsen run --sim --seeds 0..100`.

mod cli;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A tenth of a seed is memory that comes and goes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
