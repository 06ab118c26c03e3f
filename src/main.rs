//! The `petrel` program: arguments, then one command. Everything it does lies in the library; `cli` puts the parts
//! together and talks to the person at the terminal.

use std::process::ExitCode;

use clap::Parser;

mod cli;

// Gives memory back by itself, also that of RocksDB: docs/decisions/2026-11-29-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::Arguments::parse().run()
}
