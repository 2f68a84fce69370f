//! `top`: a running store as it works, from the statistics file in its directory.
//! Knows that text and how to show it; opens no store.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::args::TopArgs;
use crate::output::bytes;
use crate::{Answer, Failure};

/// The file's name in the store's directory.
const NAME: &str = "STATISTICS";
/// Columns of a bar.
const BAR_LEN: u64 = 20;
/// Moves to the corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The figures of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    figures: BTreeMap<String, u64>,
    handles: Vec<String>,
}

impl Frame {
    /// Reads what it understands; lines that it does not know are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut frame = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            if name == "handle" {
                frame.handles.push(value.trim_matches('"').replace("\\\"", "\""));
            } else if let Ok(value) = value.parse() {
                frame.figures.insert(name.to_owned(), value);
            }
        }
        frame
    }

    fn of(&self, name: &str) -> u64 {
        self.figures.get(name).copied().unwrap_or(0)
    }

    fn is_statistics(&self) -> bool {
        self.figures.contains_key("terrace_statistics")
    }
}

/// Shows frames until it is stopped, or one.
pub(crate) fn run(db: &Path, args: &TopArgs) -> Result<Answer, Failure> {
    let mut before: Option<Frame> = None;
    loop {
        let path = db.join(NAME);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let hint = "is a process at work there that was told `Options::statistics_every`?";
            Failure::Io(format!("{}: {error}; {hint}", path.display()))
        })?;
        let frame = Frame::parse(&text);
        if !frame.is_statistics() {
            return Err(Failure::Io(format!("{}: no statistics of a store", path.display())));
        }
        show(&render(&frame, before.as_ref(), wall_ms()))?;
        if args.once {
            return Ok(Answer::Done);
        }
        before = Some(frame);
        std::thread::sleep(args.every);
    }
}

/// Writes one frame; on a terminal in the place of the last.
pub(crate) fn show(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        out.write_all(CLEAR.as_bytes())?;
    }
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One frame as a person reads it; rates need an earlier one.
pub(crate) fn render(now: &Frame, before: Option<&Frame>, wall_ms: u64) -> String {
    let mut out = String::new();
    head(&mut out, now, wall_ms);
    tiers(&mut out, now);
    movement(&mut out, now, before);
    ledger(&mut out, now);
    let _ = writeln!(out, "handles   {} alive, the oldest:", now.of("handles"));
    for handle in &now.handles {
        let _ = writeln!(out, "  {handle}");
    }
    out
}

fn head(out: &mut String, now: &Frame, wall_ms: u64) {
    let age = Duration::from_millis(wall_ms.saturating_sub(now.of("wall_ms")));
    let _ = writeln!(
        out,
        "terrace   process {}, seq {}, durable {}, {:.1} s old\n",
        now.of("pid"),
        now.of("last_seq"),
        now.of("durable_seq"),
        age.as_secs_f64()
    );
}

fn tiers(out: &mut String, now: &Frame) {
    let hits = ["hot_hits", "warm_hits", "cold_hits", "misses"].map(|name| now.of(name));
    let all = hits.iter().sum::<u64>().max(1);
    let rows = [
        ("hot", "hot_records", now.of("memory.hot"), now.of("memory.budget")),
        ("warm", "warm_records", now.of("warm.len"), now.of("warm_budget")),
        ("cold", "cold_records", now.of("cold.len"), now.of("disk_budget")),
    ];
    let _ = writeln!(
        out,
        "{:<10}{:>12}{:>12}{:>12}  {:<22}{:>12}",
        "tier", "records", "bytes", "of", "", "reads"
    );
    for ((name, records, len, budget), hits) in rows.into_iter().zip(hits) {
        let of = if budget == 0 { "-".to_owned() } else { bytes(budget) };
        let share = percent(hits, all);
        let bar = if budget == 0 { String::new() } else { bar(len, budget) };
        let len = bytes(len);
        let records = now.of(records);
        let _ = writeln!(out, "{name:<10}{records:>12}{len:>12}{of:>12}  {bar:<22}{share:>10.1} %");
    }
    let misses = percent(hits.last().copied().unwrap_or(0), all);
    let _ = writeln!(out, "{:<10}{:>70.1} %\n", "absent", misses);
}

fn movement(out: &mut String, now: &Frame, before: Option<&Frame>) {
    let elapsed_ms =
        before.map_or(0, |b| now.of("monotonic_ms").saturating_sub(b.of("monotonic_ms")));
    let rate = |name: &str| {
        let done = now.of(name).saturating_sub(before.map_or(0, |before| before.of(name)));
        done.saturating_mul(1000).checked_div(elapsed_ms)
    };
    let _ = writeln!(out, "{:<24}{:>14}{:>14}", "movement", "in all", "a second");
    for (label, name, in_bytes) in [
        ("puts", "puts", false),
        ("deletes", "deletes", false),
        ("written to the journal", "journal_bytes", true),
        ("by cleaning", "survivor_bytes", true),
        ("to archives", "archive_bytes", true),
        ("segments cleaned", "segments_cleaned", false),
        ("records gathered", "records_gathered", false),
        ("records demoted", "records_demoted", false),
        ("records expired", "records_expired", false),
        ("archives merged", "archives_merged", false),
    ] {
        let shown = |value: u64| if in_bytes { bytes(value) } else { value.to_string() };
        let a_second = rate(name).map_or_else(|| "-".to_owned(), shown);
        let _ = writeln!(out, "  {label:<22}{:>14}{a_second:>14}", shown(now.of(name)));
    }
    let waited = Duration::from_micros(now.of("put_wait_us"));
    let _ = writeln!(
        out,
        "debt      {} owed, {} writes waited {:.2} s in all\n",
        bytes(now.of("debt_bytes")),
        now.of("put_waits"),
        waited.as_secs_f64()
    );
}

fn ledger(out: &mut String, now: &Frame) {
    let classes = [
        "live",
        "dead",
        "expired",
        "tombstone",
        "unresolved",
        "damaged",
        "reserved",
        "trailer",
        "index",
        "filter",
        "dictionary",
    ];
    let shown: Vec<String> = classes
        .iter()
        .map(|class| (class, ["warm", "cold", "other"].map(|t| now.of(&format!("{t}.{class}")))))
        .filter(|(_, sums)| sums.iter().any(|bytes| *bytes > 0))
        .map(|(class, sums)| format!("{class} {}", bytes(sums.iter().sum())))
        .collect();
    let _ = writeln!(out, "ledger    {}", shown.join(", "));
    let memory = ["hot", "index", "order", "versions", "changes", "filters"];
    let shown =
        memory.map(|class| format!("{class} {}", bytes(now.of(&format!("memory.{class}")))));
    let _ = writeln!(out, "memory    {}", shown.join(", "));
    let (pinned, unlinked) = (now.of("pinned_bytes"), now.of("unlinked"));
    let disk = now.of("disk_bytes");
    let _ = writeln!(
        out,
        "disk      {}, of it pinned {}; unlinked and held {}\n",
        bytes(disk),
        bytes(pinned),
        bytes(unlinked)
    );
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn percent(of: u64, all: u64) -> f64 {
    of as f64 * 100.0 / all as f64
}

fn bar(len: u64, budget: u64) -> String {
    let full = len.saturating_mul(BAR_LEN).checked_div(budget).unwrap_or(0).min(BAR_LEN);
    let full = usize::try_from(full).unwrap_or(0);
    let rest = usize::try_from(BAR_LEN).unwrap_or(0) - full;
    format!("[{}{}]", "#".repeat(full), " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "terrace_statistics 1\npid 7\nmonotonic_ms 3000\nputs 500\n\
        hot_hits 30\nmisses 10\nmemory.hot 1048576\nmemory.budget 4194304\nwarm.live 2048\n\
        unknown words here\nhandles 1\nhandle \"Snapshot \\\"a\\\" made at x.rs:1:2\"\n";

    #[test]
    fn a_frame_shows_tiers_rates_classes_and_handles() {
        let now = Frame::parse(TEXT);
        assert!(now.is_statistics());
        let mut before = now.clone();
        before.figures.insert("monotonic_ms".into(), 1000);
        before.figures.insert("puts".into(), 100);
        let shown = render(&now, Some(&before), 0);
        for part in [
            "process 7",
            "[#####               ]",
            "75.0 %",
            "25.0 %",
            "puts                             500           200",
            "live 2.0 KiB",
            "Snapshot \"a\" made at x.rs:1:2",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
    }

    #[test]
    fn any_text_is_shown_without_harm() {
        for text in ["", "handle", "puts -1\nwarm.len 18446744073709551615\nwarm_budget 1\n"] {
            let frame = Frame::parse(text);
            assert!(!frame.is_statistics());
            assert!(render(&frame, Some(&frame), 5).contains("tier"));
        }
    }
}
