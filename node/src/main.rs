//! Seriatim: an event log cluster in one binary.

mod cli;
mod config;
mod demo;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod errors;
mod logging;
mod metrics;
mod node;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, which hold a third more memory than is in use. A kernel
    // that knows no such setting needs none.
    let _no_such_setting = rustix::thread::disable_transparent_huge_pages(true);
    let cli = cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    let outcome = runtime.block_on(cli::run(cli));
    // What blocks in a read of standard input must not hold up the exit. A node has stopped its own
    // work before.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::fail(&error),
    }
}
