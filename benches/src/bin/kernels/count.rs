//! Counting instructions by callgrind, and what was counted before.
//! Knows the tool and the file of figures; knows nothing of what a kernel does.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "reads and writes the file of figures, and measures time"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::kernel::{Kernel, Outcome, Prepared};

/// Records of the store that is counted over.
pub(crate) const KEYS: u64 = 20_000;
/// More instructions than before that are let pass, in percent: what the library of the system and
/// another processor may add.
const MORE_PERCENT_MAX: u64 = 10;
/// Fewer than before from which on the file should be renewed.
const FEWER_PERCENT: u64 = 10;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Instructions of one call, as callgrind counts those of the calling thread.
fn instructions(kernel: Kernel) -> Outcome<u64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let calls = kernel.calls();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*kernel_call*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["count", kernel.name(), &calls.to_string()])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind failed: {}", said.trim()).into());
    }
    let text = fs::read_to_string(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or("callgrind wrote no totals")?.trim().parse::<u64>()?;
    Ok(total / calls)
}

fn known() -> Outcome<BTreeMap<String, u64>> {
    let text = fs::read_to_string(file())?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').ok_or("a line is a name and a figure")?;
            Ok((name.to_owned(), count.trim().parse()?))
        })
        .collect()
}

/// Counts every kernel; an error names those that take more than they did.
pub(crate) fn check() -> Outcome<()> {
    let known = known()?;
    let mut worse = Vec::new();
    println!("| kernel | instructions a call | as known |");
    println!("|---|---:|---:|");
    for kernel in Kernel::ALL {
        let (found, name) = (instructions(kernel)?, kernel.name());
        let before = known.get(name).copied().ok_or_else(|| format!("{name} is not known"))?;
        println!("| {name} | {found} | {before} |");
        if found * 100 > before * (100 + MORE_PERCENT_MAX) {
            worse.push(format!("{name} takes {found} instructions, {before} before"));
        } else if found * 100 < before * (100 - FEWER_PERCENT) {
            println!("{name} became cheaper: `kernels write` keeps it so");
        }
    }
    if worse.is_empty() { Ok(()) } else { Err(worse.join("; ").into()) }
}

/// Counts every kernel and keeps the figures.
pub(crate) fn write() -> Outcome<()> {
    let mut text = String::from(
        "# Instructions of one call: written by `kernels write`, checked by `kernels check`.\n",
    );
    for kernel in Kernel::ALL {
        writeln!(text, "{} {}", kernel.name(), instructions(kernel)?)?;
    }
    print!("{text}");
    Ok(fs::write(file(), text)?)
}

/// Slices of a run whose times are compared: some of them nobody disturbs.
const SLICES: u64 = 100;

/// Prints nanoseconds a call: the median of the slices.
#[expect(clippy::cast_precision_loss, reason = "figures for reading")]
pub(crate) fn time(kernel: Kernel, keys: u64, calls: u64) -> Outcome<()> {
    let mut prepared = Prepared::new(kernel, keys)?;
    let slice = (calls / SLICES).max(1);
    let mut figures = Vec::new();
    for _ in 0..SLICES {
        let begin = Instant::now();
        prepared.run(slice)?;
        figures.push(begin.elapsed().as_nanos() as f64 / slice as f64);
    }
    figures.sort_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).copied().unwrap_or(0.0);
    println!(
        "{} {keys} keys: {:.0} ns a call, best {:.0}",
        kernel.name(),
        at(figures.len() / 2),
        at(0)
    );
    Ok(())
}
