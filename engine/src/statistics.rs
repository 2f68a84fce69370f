//! The statistics file: what a store does, for whoever looks on from outside, and the same figures
//! for the facade of the crate `metrics`. Text for people and programs; the engine never reads it.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::leaks;
use crate::ledger::leaks::LeakPolicy;
use crate::stats::Stats;
use crate::tiers::Tiers;
use crate::tiers::recover::STATISTICS_NAME;

/// Handles that the text tells, the oldest first.
const HANDLES_MAX: usize = 8;

/// A figure of the statistics: its name, its value, and whether it only ever rises.
type Figure = (&'static str, u64, bool);

/// The figures of a store by name.
fn figures(stats: &Stats) -> [Figure; 31] {
    [
        ("puts", stats.puts, true),
        ("deletes", stats.deletes, true),
        ("hot_hits", stats.hot_hits, true),
        ("warm_hits", stats.warm_hits, true),
        ("cold_hits", stats.cold_hits, true),
        ("misses", stats.misses, true),
        ("user_bytes", stats.user_bytes, true),
        ("journal_bytes", stats.journal_bytes, true),
        ("survivor_bytes", stats.survivor_bytes, true),
        ("archive_bytes", stats.archive_bytes, true),
        ("segments_cleaned", stats.segments_cleaned, true),
        ("records_gathered", stats.records_gathered, true),
        ("records_demoted", stats.records_demoted, true),
        ("records_expired", stats.records_expired, true),
        ("archives_merged", stats.archives_merged, true),
        ("put_waits", stats.put_waits, true),
        ("put_wait_us", stats.put_wait_us, true),
        ("debt_bytes", stats.debt_bytes, false),
        ("hot_records", stats.hot_records, false),
        ("warm_records", stats.warm_records, false),
        ("cold_records", stats.cold_records, false),
        ("segments", stats.segments, false),
        ("archives", stats.archives, false),
        ("index_bytes", stats.index_bytes, false),
        ("order_bytes", stats.order_bytes, false),
        ("kept_versions", stats.kept_versions, false),
        ("pinned_bytes", stats.pinned_bytes, false),
        ("warm_bytes", stats.warm_bytes, false),
        ("disk_bytes", stats.disk_bytes, false),
        ("last_seq", stats.last_seq, false),
        ("durable_seq", stats.durable_seq, false),
    ]
}

/// Everything as text: a line a figure, `name value`; what has no number is quoted.
pub(crate) fn text(tiers: &Tiers) -> String {
    let mut out = String::from("terrace_statistics 1\n");
    let mut line = |name: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name} {value}");
    };
    line("pid", u64::from(tiers.pid));
    line("wall_ms", tiers.clock.now_ms());
    line("monotonic_ms", tiers.clock.monotonic_ms());
    for (name, value, _) in figures(&Stats::of(tiers)) {
        line(name, value);
    }
    line("warm_budget", tiers.options.warm_budget);
    line("disk_budget", tiers.options.disk_budget.unwrap_or(0));
    let ledger = tiers.ledger();
    for (tier, bytes) in [("warm", &ledger.warm), ("cold", &ledger.cold), ("other", &ledger.other)]
    {
        for (class, bytes) in bytes.classes() {
            line(&format!("{tier}.{class}"), bytes);
        }
    }
    let memory = ledger.memory;
    for (class, bytes) in [
        ("hot", memory.hot),
        ("index", memory.index),
        ("order", memory.order),
        ("versions", memory.versions),
        ("changes", memory.changes),
        ("filters", memory.filters),
        ("total", memory.total),
        ("budget", memory.budget),
    ] {
        line(&format!("memory.{class}"), bytes);
    }
    line("unlinked", ledger.unlinked);
    let report = leaks::report(tiers, &LeakPolicy::new());
    line("handles", report.handles.len() as u64);
    for handle in report.handles.iter().take(HANDLES_MAX) {
        let _ = writeln!(out, "handle {:?}", handle.to_string());
    }
    out
}

/// Puts the text in the place of the statistics file, whole or not at all.
pub(crate) fn write_file(tiers: &Tiers) -> Result<()> {
    let text = text(tiers);
    let written = tiers.dir.replace(STATISTICS_NAME, text.as_bytes());
    let path = || tiers.dir.path().join(STATISTICS_NAME);
    written.map_err(|error| Error::io("write statistics", path(), error))?;
    let len = text.len() as u64;
    tiers.extra.statistics_len.store(len, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// What the worker for statistics does each time.
pub(crate) fn publish(tiers: &Tiers) {
    if let Err(error) = write_file(tiers) {
        tracing::warn!(%error, "no statistics were written");
    }
    #[cfg(feature = "metrics")]
    emit(tiers);
}

/// Hands the figures to the recorder that the program installed for the crate `metrics`.
#[cfg(feature = "metrics")]
pub(crate) fn emit(tiers: &Tiers) {
    let store = tiers.dir.path().display().to_string();
    for (name, value, rises) in figures(&Stats::of(tiers)) {
        let name = format!("terrace_{name}");
        if rises {
            metrics::counter!(format!("{name}_total"), "store" => store.clone()).absolute(value);
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            metrics::gauge!(name, "store" => store.clone()).set(value as f64);
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use parking_lot::Mutex;

    use crate::options::Options;

    use super::*;

    #[derive(Default)]
    struct Names(Mutex<Vec<String>>);

    impl Recorder for Names {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.0.lock().push(key.name().to_owned());
            Counter::noop()
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.0.lock().push(key.name().to_owned());
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn the_recorder_of_a_program_gets_every_figure() {
        let dir = tempfile::tempdir().unwrap();
        let tiers = Tiers::open(dir.path(), Options::new()).unwrap();
        let names = Names::default();
        metrics::with_local_recorder(&names, || emit(&tiers));
        let names = names.0.into_inner();
        assert_eq!(names.len(), figures(&Stats::of(&tiers)).len());
        assert!(names.contains(&"terrace_puts_total".to_owned()));
        assert!(names.contains(&"terrace_debt_bytes".to_owned()));
    }
}
