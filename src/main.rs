//! The `petrel` program: arguments, then one command. Everything it does lies in the library; `cli` puts the parts
//! together and talks to the person at the terminal.

use std::process::ExitCode;

use clap::Parser;

mod cli;

// The system's allocator gives memory back late and costs more on the message path.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::Arguments::parse().run()
}
