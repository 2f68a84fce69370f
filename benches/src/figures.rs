//! The rows, and the figures that the processes handed over: medians with their spread.
//! Knows names and numbers; knows nothing of how they are measured or shown.

use std::collections::BTreeMap;

/// How a figure reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// More is better.
    PerSecond,
    /// Less is better, as all below.
    Microseconds,
    Milliseconds,
    Bytes,
    Ratio,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "a second",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
}

const fn row(id: &'static str, title: &'static str, unit: Unit) -> Row {
    Row { id, title, unit }
}

/// The rows of stores, in the order of the table.
pub(crate) const STORE_ROWS: &[Row] = &[
    row("load", "bulk load, batches of 1000", Unit::PerSecond),
    row("put", "put, buffered, new keys in no order", Unit::PerSecond),
    row("put_synced_1", "put, synced, 1 thread", Unit::PerSecond),
    row("put_synced_4", "put, synced, 4 threads", Unit::PerSecond),
    row("get_uniform_1", "get, uniform, 1 thread", Unit::PerSecond),
    row("get_uniform_2", "get, uniform, 2 threads", Unit::PerSecond),
    row("get_zipf_1", "get, zipf, 1 thread", Unit::PerSecond),
    row("get_zipf_2", "get, zipf, 2 threads", Unit::PerSecond),
    row("get_absent", "get, absent keys", Unit::PerSecond),
    row("multi_get_32", "multi_get of 32, keys", Unit::PerSecond),
    row("scan_50", "scan of 50 records, scans", Unit::PerSecond),
    row("ycsb_a", "YCSB A, half updates", Unit::PerSecond),
    row("ycsb_b", "YCSB B, 5 % updates", Unit::PerSecond),
    row("ycsb_c", "YCSB C, reads", Unit::PerSecond),
    row("ycsb_d", "YCSB D, latest, 5 % inserts", Unit::PerSecond),
    row("ycsb_e", "YCSB E, scans, 5 % inserts", Unit::PerSecond),
    row("ycsb_f", "YCSB F, half read and rewritten", Unit::PerSecond),
    row("limited_zipf", "get, zipf, memory a quarter of the data", Unit::PerSecond),
    row("limited_hot", "of it answered by a cache of records, as reported", Unit::Ratio),
    row("delete", "delete in batches of 1000", Unit::PerSecond),
    row("space_overwritten", "(disk - 4 MiB) / live, after 3-fold overwrite", Unit::Ratio),
    row("space_deleted", "(disk - 4 MiB) / live, after deleting 90 %", Unit::Ratio),
    row("disk_per_key", "disk a record", Unit::Bytes),
    row("memory_per_key", "anonymous memory a key, caches included", Unit::Bytes),
    row("index_per_key", "of it the index, as reported", Unit::Bytes),
    row("order_per_key", "of it the order, as reported", Unit::Bytes),
    row("open_after_close", "open after close, and one get", Unit::Milliseconds),
    row("open_after_kill", "open after kill -9, and one get", Unit::Milliseconds),
    row("cold_size", "JSON texts of 1 KiB: disk / raw", Unit::Ratio),
    row("cold_get", "JSON texts of 1 KiB: a get", Unit::Microseconds),
];

/// The rows of maps in memory.
pub(crate) const CACHE_ROWS: &[Row] = &[
    row("hot_put", "put", Unit::PerSecond),
    row("hot_get_uniform_1", "get, uniform, 1 thread", Unit::PerSecond),
    row("hot_get_uniform_2", "get, uniform, 2 threads", Unit::PerSecond),
    row("hot_get_zipf_1", "get, zipf, 1 thread", Unit::PerSecond),
    row("hot_get_zipf_2", "get, zipf, 2 threads", Unit::PerSecond),
];

/// What one cell holds: the median of its repetitions, the least and the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    samples: BTreeMap<(String, String), Vec<f64>>,
}

impl Figures {
    /// Enters one repetition of a row.
    pub(crate) fn add(&mut self, engine: &str, row: &str, value: f64) {
        self.samples.entry((engine.to_owned(), row.to_owned())).or_default().push(value);
    }

    /// The cell of a row and an engine; `None` when it was not measured.
    pub(crate) fn cell(&self, engine: &str, row: &str) -> Option<Cell> {
        let mut sorted = self.samples.get(&(engine.to_owned(), row.to_owned()))?.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Cell { median: f64::midpoint(lower, upper), min, max, count: sorted.len() })
    }
}

/// A figure as a person reads it: three digits that count.
pub(crate) fn text(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.0} k", value / 1e3),
        v if v >= 1e3 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_both_middles() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 10.0] {
            figures.add("a", "put", value);
        }
        let cell = Cell { median: 3.0, min: 1.0, max: 10.0, count: 3 };
        assert_eq!(figures.cell("a", "put"), Some(cell));
        figures.add("a", "put", 4.0);
        assert_eq!(figures.cell("a", "put").map(|cell| cell.median), Some(3.5));
        assert_eq!(figures.cell("b", "put"), None);
    }

    #[test]
    fn figures_read_with_three_digits() {
        let texts = [1.234, 12.34, 123.4, 1234.0, 12_340.0, 1_234_000.0].map(text);
        assert_eq!(texts, ["1.23", "12.3", "123", "1.2 k", "12 k", "1.23 M"]);
    }
}
