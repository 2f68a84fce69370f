//! How figures look: bytes for people, tables, progress.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use terrace::{FileBytes, Ledger};

/// Bytes with a unit.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn bytes(len: u64) -> String {
    match len {
        0..1024 => format!("{len} B"),
        1024..1_048_576 => format!("{:.1} KiB", len as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", len as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", len as f64 / 1_073_741_824.0),
    }
}

/// A duration with a unit.
pub(crate) fn time(elapsed: Duration) -> String {
    let ns = elapsed.as_nanos();
    match ns {
        0..1000 => format!("{ns} ns"),
        1000..1_000_000 => format!("{:.1} us", elapsed.as_secs_f64() * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", elapsed.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", elapsed.as_secs_f64()),
    }
}

/// A progress bar on standard error; silent when nobody watches.
pub(crate) fn progress(total: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total).with_message(what);
    let style = ProgressStyle::with_template("{msg:>10} {bar:40} {percent:>3} % {eta}");
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// The classes of an account, as a table shows them.
pub(crate) fn classes(bytes: &FileBytes) -> [(&'static str, u64); 17] {
    bytes.classes().map(|(name, bytes)| match name {
        "saved" => ("- saved", bytes),
        "len" => ("= length", bytes),
        _ => (name, bytes),
    })
}

/// The ledger as a table.
pub(crate) fn ledger_table(ledger: &Ledger) -> String {
    let mut out = format!("{:<12}{:>14}{:>14}{:>14}\n", "bytes", "log", "archives", "other");
    let columns = [&ledger.warm, &ledger.cold, &ledger.other].map(classes);
    let [warm, cold, other] = columns;
    for ((name, warm), ((_, cold), (_, other))) in warm.into_iter().zip(cold.into_iter().zip(other))
    {
        if warm + cold + other > 0 {
            let _ = writeln!(out, "{name:<12}{warm:>14}{cold:>14}{other:>14}");
        }
    }
    let memory = ledger.memory;
    let _ = writeln!(
        out,
        "memory: hot {}, index {}, order {}, versions {}, changes {}, filters {}, of {}",
        bytes(memory.hot),
        bytes(memory.index),
        bytes(memory.order),
        bytes(memory.versions),
        bytes(memory.changes),
        bytes(memory.filters),
        bytes(memory.budget)
    );
    for one in &ledger.keyspaces {
        let (log, archives) = (bytes(one.warm), bytes(one.cold));
        let (lasting, expired) = (bytes(one.lasting), bytes(one.expired));
        let _ = writeln!(
            out,
            "keyspace {:?}: {log} in the log, {archives} archived, {lasting} without deadline, \
             {expired} expired",
            one.name
        );
    }
    if ledger.unlinked > 0 {
        let _ = writeln!(out, "unlinked, held by values: {}", bytes(ledger.unlinked));
    }
    out
}
