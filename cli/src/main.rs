//! `terrace`: a store of the Terrace engine from the command line.
//! Exit codes: 0 found or done, 1 not found, 2 usage, 3 damage or I/O.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program reads files, clocks and the environment itself"
)]

mod args;
mod command;
mod jsonl;
mod output;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use terrace::{Db, OpenPolicy, Options};

use crate::args::{Args, Command};

const NO_STORE: &str = "no store named: give --db DIR or set TERRACE_DB";

/// What a command answers, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done,
    NotFound,
    Damage,
}

/// Why a command failed. The text is what a person reads.
#[derive(Debug)]
enum Failure {
    Usage(String),
    Store(terrace::Error),
    Io(String),
}

impl From<terrace::Error> for Failure {
    fn from(error: terrace::Error) -> Self {
        match error {
            terrace::Error::Limit { .. } | terrace::Error::Invalid { .. } => {
                Self::Usage(error.to_string())
            }
            other => Self::Store(other),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::NotFound) => ExitCode::from(1),
        Ok(Answer::Damage) => ExitCode::from(3),
        Err(Failure::Usage(text)) => fail(&text, 2),
        Err(Failure::Store(error)) => fail(&error.to_string(), 3),
        Err(Failure::Io(text)) => fail(&text, 3),
    }
}

/// Commands that only read work beside a program that has the store open.
fn open(path: &Path, command: &Command) -> Result<Db, Failure> {
    match command {
        Command::Put { .. } | Command::Import { .. } => return Ok(Db::open(path)?),
        _ if !path.exists() => {
            return Err(Failure::Io(format!("{}: no store is there", path.display())));
        }
        Command::Delete(_) | Command::Compact => return Ok(Db::open(path)?),
        _ => {}
    }
    let policy = match command {
        Command::Verify { .. } => OpenPolicy::Degraded,
        _ => OpenPolicy::Strict,
    };
    Ok(Options::new().open_policy(policy).open_read_only(path)?)
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("terrace: {text}");
    ExitCode::from(code)
}

fn run(args: Args) -> Result<Answer, Failure> {
    match args.command {
        Command::Demo(demo) => command::demo::run(&demo),
        Command::DemoWriter(writer) => command::demo::write_until_killed(&writer),
        Command::Salvage { from, into } => command::salvage::run(&from, &into, args.json),
        Command::Top(top) => match &args.db {
            Some(path) => command::top::run(path, &top),
            None => Err(Failure::Usage(NO_STORE.into())),
        },
        Command::Bench(bench) => command::bench::run(&bench, args.json),
        other => {
            let Some(path) = args.db else {
                return Err(Failure::Usage(NO_STORE.into()));
            };
            let db = open(&path, &other)?;
            let answer = command::run(&db, other, args.json)?;
            db.close()?;
            Ok(answer)
        }
    }
}
