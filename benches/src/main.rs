//! `terrace-benches`: Terrace and its peers side by side, on this machine, by one command.
//! `cargo run --release -p terrace-benches --features peers -- compare --quick`

#![deny(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a bench reads clocks, files and processes itself")]

mod cgroup;
mod compare;
mod engine;
mod figures;
mod group;
mod growth;
mod limited;
mod peers;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compare::CompareArgs;
use crate::group::Job;

/// Terrace and its peers side by side.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every engine of this build; writes a table, JSON and charts.
    Compare(CompareArgs),
    /// Measures one group of rows on one engine: what `compare` starts.
    #[command(hide = true)]
    One(Job),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::One(job) => group::run(&job),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terrace-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
