//! The run as JSON: what a program compares with another run.

use serde_json::{Value, json};

use crate::figures::{CACHE_ROWS, Figures, Row, STORE_ROWS};
use crate::peers::Named;
use crate::report::Run;

pub(crate) fn value(run: &Run, machine: &str) -> Value {
    let config = |engines: &[Named]| -> Vec<Value> {
        engines.iter().map(|(name, config)| json!({ "name": name, "config": config })).collect()
    };
    let mut all = rows(STORE_ROWS, &run.stores, &run.figures);
    all.extend(rows(CACHE_ROWS, &run.caches, &run.figures));
    json!({
        "machine": machine,
        "what": run.what,
        "keys": run.sizes.keys,
        "ops": run.sizes.ops,
        "repetitions": run.sizes.repetitions,
        "cache_bytes": run.sizes.cache_bytes,
        "engines": config(&run.stores),
        "caches": config(&run.caches),
        "rows": all,
        "left_out": run.failures,
    })
}

fn rows(rows: &[Row], engines: &[Named], figures: &Figures) -> Vec<Value> {
    let one = |row: &Row| {
        let cells = engines.iter().filter_map(|(name, _)| {
            let cell = figures.cell(name, row.id)?;
            Some(json!({
                "engine": name,
                "median": cell.median,
                "min": cell.min,
                "max": cell.max,
                "count": cell.count,
            }))
        });
        json!({
            "row": row.id,
            "title": row.title,
            "unit": row.unit.name(),
            "cells": cells.collect::<Vec<_>>(),
        })
    };
    rows.iter().map(one).collect()
}
