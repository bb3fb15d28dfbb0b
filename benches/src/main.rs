//! The load generator of Seriatim.

use std::process::ExitCode;

use clap::Parser as _;
use seriatim_benches::args::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person about a failure"
)]
fn main() -> ExitCode {
    match seriatim_benches::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
