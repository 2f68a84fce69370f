//! The report of a run: a table, the same as JSON, and charts. Knows figures; measures nothing.

mod json;
mod markdown;
mod svg;

use std::path::Path;

use crate::compare::Sizes;
use crate::engine::Outcome;
use crate::figures::{CACHE_ROWS, Figures, STORE_ROWS};
use crate::peers::Named;

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its sizes in a sentence.
    pub what: String,
    pub sizes: Sizes,
    pub stores: Vec<Named>,
    pub caches: Vec<Named>,
    pub figures: Figures,
    /// What was left out or failed, and why.
    pub failures: Vec<String>,
}

/// The charts: file and title, and the rows that stand side by side in it.
const CHARTS: &[(&str, &str, &[&str])] = &[
    (
        "reads.svg",
        "Reads, operations a second",
        &["get_uniform_1", "get_uniform_2", "get_zipf_1", "get_absent", "multi_get_32"],
    ),
    ("writes.svg", "Writes, operations a second", &["load", "put", "ycsb_a", "ycsb_f", "delete"]),
    ("synced.svg", "Synced puts a second", &["put_synced_1", "put_synced_4"]),
    ("scans.svg", "Scans a second", &["scan_50", "ycsb_e"]),
    (
        "space.svg",
        "Bytes on disk per live byte",
        &["space_overwritten", "space_deleted", "cold_size"],
    ),
];

/// Writes the files into `out` and answers the table.
pub(crate) fn write(run: &Run, out: &Path) -> Outcome<String> {
    std::fs::create_dir_all(out)?;
    let machine = machine();
    let table = markdown::table(run, &machine);
    std::fs::write(out.join("compare.md"), &table)?;
    let text = serde_json::to_string_pretty(&json::value(run, &machine))?;
    std::fs::write(out.join("compare.json"), text)?;
    for (file, title, ids) in CHARTS {
        let rows: Vec<_> = STORE_ROWS.iter().filter(|row| ids.contains(&row.id)).collect();
        std::fs::write(out.join(file), svg::chart(title, &rows, &run.stores, &run.figures))?;
    }
    let rows: Vec<_> = CACHE_ROWS.iter().collect();
    let hot = svg::chart("In memory, operations a second", &rows, &run.caches, &run.figures);
    std::fs::write(out.join("hot.svg"), hot)?;
    Ok(table)
}

/// Processor, cores, memory and kernel: figures mean nothing without them.
fn machine() -> String {
    let line = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split(['-', '\n']).next().unwrap_or_default().to_owned();
    let model = line("/proc/cpuinfo", "model name");
    let memory = line("/proc/meminfo", "MemTotal");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).unwrap_or_default();
    format!("{model}, {cores} cores, memory {memory}, Linux {kernel}, load of 15 minutes {load}")
}
