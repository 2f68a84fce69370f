//! The table as Markdown: a row a line, an engine a column, the best of a row in bold.

use std::fmt::Write;

use crate::figures::{CACHE_ROWS, Cell, Figures, Row, STORE_ROWS, text};
use crate::peers::Named;
use crate::report::Run;

pub(crate) fn table(run: &Run, machine: &str) -> String {
    let mut out = format!(
        "Machine: {machine}.\n\n{} Median; below it the least and the largest where there is more \
         than one. The best of a row is bold.\n\n",
        run.what
    );
    rows(&mut out, "Stores", STORE_ROWS, &run.stores, &run.figures);
    rows(&mut out, "In memory", CACHE_ROWS, &run.caches, &run.figures);
    out.push_str("How each is configured:\n\n");
    for (name, config) in run.stores.iter().chain(&run.caches) {
        line(&mut out, format_args!("* {name}: {config}"));
    }
    if !run.failures.is_empty() {
        out.push_str("\nLeft out or failed:\n\n");
        for failure in &run.failures {
            line(&mut out, format_args!("* {failure}"));
        }
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ok = writeln!(out, "{text}");
}

fn rows(out: &mut String, title: &str, rows: &[Row], engines: &[Named], figures: &Figures) {
    let names: Vec<&str> = engines.iter().map(|engine| engine.0).collect();
    let cells = |row: &Row| -> Vec<Option<Cell>> {
        names.iter().map(|name| figures.cell(name, row.id)).collect()
    };
    if !rows.iter().any(|row| cells(row).iter().any(Option::is_some)) {
        return;
    }
    line(out, format_args!("| {title} | unit | {} |", names.join(" | ")));
    line(out, format_args!("|---|---|{}", "---:|".repeat(names.len())));
    for row in rows {
        let cells = cells(row);
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let best = best(row, &cells);
        let texts: Vec<String> = cells.iter().map(|cell| cell_text(*cell, best)).collect();
        line(out, format_args!("| {} | {} | {} |", row.title, row.unit.name(), texts.join(" | ")));
    }
    out.push('\n');
}

/// The best median of a row.
fn best(row: &Row, cells: &[Option<Cell>]) -> Option<f64> {
    let medians = cells.iter().flatten().map(|cell| cell.median);
    if row.unit.more_is_better() {
        medians.max_by(f64::total_cmp)
    } else {
        medians.min_by(f64::total_cmp)
    }
}

fn cell_text(cell: Option<Cell>, best: Option<f64>) -> String {
    let Some(cell) = cell else { return "-".to_owned() };
    let median = text(cell.median);
    let is_best = best.is_some_and(|best| best.total_cmp(&cell.median).is_eq());
    let median = if is_best { format!("**{median}**") } else { median };
    if cell.count < 2 {
        return median;
    }
    format!("{median}<br>{} - {}", text(cell.min), text(cell.max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Sizes;

    #[test]
    fn the_table_has_the_medians_the_best_in_bold_and_what_was_left_out() {
        let mut figures = Figures::default();
        for (engine, value) in [("a", 10.0), ("a", 30.0), ("b", 5.0)] {
            figures.add(engine, "put", value);
        }
        figures.add("b", "disk_per_key", 5.0);
        let run = Run {
            what: "One key.".to_owned(),
            sizes: Sizes { keys: 1, value_len: 1, ops: 1, repetitions: 1, cache_bytes: 1 },
            stores: vec![("a", "as it comes"), ("b", "as it comes")],
            caches: Vec::new(),
            figures,
            failures: vec!["c: no".to_owned()],
        };
        let table = table(&run, "a machine");
        assert!(table.contains("a second | **20.0**<br>10.0 - 30.0 | 5.00 |"), "{table}");
        assert!(table.contains("| bytes | - | **5.00** |"), "{table}");
        assert!(table.contains("* c: no"), "{table}");
        assert!(!table.contains("In memory"), "{table}");
    }
}
