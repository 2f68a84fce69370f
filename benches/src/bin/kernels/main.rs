//! The inner loops of reads and writes, one by one: instructions by callgrind, or nanoseconds.
//!
//! `kernels check` counts the instructions of each call under `valgrind --tool=callgrind` and fails
//! where one takes a tenth more than `benches/instructions.txt` says; `kernels write` renews that
//! file. `kernels time NAME [KEYS [CALLS]]` prints nanoseconds a call, and is what to profile.
//! Instructions are the same on a busy machine; nanoseconds are not.

#![forbid(unsafe_code)]

mod count;
mod kernel;

use std::process::ExitCode;

use crate::kernel::{Kernel, Outcome, Prepared};

const USAGE: &str = "kernels check | write | list | time NAME [KEYS [CALLS]] | count NAME CALLS";

fn run() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut numbers = |default: u64| {
        arguments.next().map_or(Ok(default), |text| text.parse::<u64>()).map_err(|_| USAGE)
    };
    match what.as_str() {
        "check" => count::check(),
        "write" => count::write(),
        "list" => {
            for kernel in Kernel::ALL {
                println!("{}", kernel.name());
            }
            Ok(())
        }
        "time" | "count" => {
            let name = std::env::args().nth(2).ok_or(USAGE)?;
            let kernel = Kernel::of(&name).ok_or(USAGE)?;
            numbers(0).ok();
            if what == "count" {
                let calls = numbers(0)?;
                return Prepared::new(kernel, count::KEYS)?.run(calls);
            }
            let (keys, calls) = (numbers(1_000_000)?, numbers(2_000_000)?);
            count::time(kernel, keys, calls)
        }
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::FAILURE
        }
    }
}
