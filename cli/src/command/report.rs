//! `stats`, `ledger`, `verify`, `checkpoint`, `compact`.

use std::path::Path;

use serde_json::{Map, Value, json};
use terrace::{Db, Stats, VerifyOptions};

use crate::output::{classes, ledger_table, progress};
use crate::{Answer, Failure};

fn figures(stats: &Stats) -> [(&'static str, u64); 28] {
    [
        ("puts", stats.puts),
        ("deletes", stats.deletes),
        ("hot_hits", stats.hot_hits),
        ("warm_hits", stats.warm_hits),
        ("cold_hits", stats.cold_hits),
        ("misses", stats.misses),
        ("user_bytes", stats.user_bytes),
        ("journal_bytes", stats.journal_bytes),
        ("survivor_bytes", stats.survivor_bytes),
        ("archive_bytes", stats.archive_bytes),
        ("segments_cleaned", stats.segments_cleaned),
        ("records_gathered", stats.records_gathered),
        ("records_demoted", stats.records_demoted),
        ("records_expired", stats.records_expired),
        ("archives_merged", stats.archives_merged),
        ("put_waits", stats.put_waits),
        ("put_wait_us", stats.put_wait_us),
        ("debt_bytes", stats.debt_bytes),
        ("hot_records", stats.hot_records),
        ("warm_records", stats.warm_records),
        ("cold_records", stats.cold_records),
        ("segments", stats.segments),
        ("archives", stats.archives),
        ("index_bytes", stats.index_bytes),
        ("warm_bytes", stats.warm_bytes),
        ("disk_bytes", stats.disk_bytes),
        ("last_seq", stats.last_seq),
        ("durable_seq", stats.durable_seq),
    ]
}

pub(crate) fn stats(db: &Db, json: bool) -> Result<Answer, Failure> {
    let stats = db.stats();
    let figures = figures(&stats);
    if json {
        let mut object: Map<String, Value> =
            figures.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        object.insert("foreign_files".into(), stats.foreign_files.into());
        object.insert("keyspaces".into(), db.keyspaces()?.into());
        println!("{}", Value::Object(object));
        return Ok(Answer::Done);
    }
    for (name, value) in figures {
        println!("{name:<18}{value:>16}");
    }
    for name in db.keyspaces()? {
        let count = db.keyspace(&name)?.approximate_len();
        println!("keyspace {name:?}: about {count} keys");
    }
    for name in stats.foreign_files {
        println!("not ours, left alone: {name:?}");
    }
    Ok(Answer::Done)
}

pub(crate) fn ledger(db: &Db, json: bool) -> Result<Answer, Failure> {
    let ledger = db.ledger();
    let audit = db.audit()?;
    if json {
        let object = |bytes| -> Map<String, Value> {
            let classes = classes(bytes).into_iter();
            classes
                .map(|(name, len)| (name.trim_start_matches(['-', '=', ' ']).into(), len.into()))
                .collect()
        };
        let files: Vec<Value> = ledger
            .files
            .iter()
            .map(|file| json!({ "name": file.name, "bytes": object(&file.bytes) }))
            .collect();
        let keyspaces: Vec<Value> = ledger
            .keyspaces
            .iter()
            .map(|one| {
                let (warm, cold, lasting) = (one.warm, one.cold, one.lasting);
                json!({ "name": one.name, "warm": warm, "cold": cold, "lasting": lasting,
                        "expired": one.expired })
            })
            .collect();
        println!(
            "{}",
            json!({
                "keyspaces": keyspaces,
                "unlinked": ledger.unlinked,
                "warm": object(&ledger.warm),
                "cold": object(&ledger.cold),
                "other": object(&ledger.other),
                "files": files,
                "exact": audit.is_exact(),
                "differences": audit.differences,
                "orphans": audit.orphans,
            })
        );
    } else {
        print!("{}", ledger_table(&ledger));
        println!("audit: {} records in {} files recounted", audit.records, audit.files);
        for line in audit.differences.iter().chain(&audit.orphans) {
            println!("  differs: {line}");
        }
    }
    Ok(if audit.is_exact() { Answer::Done } else { Answer::Damage })
}

pub(crate) fn verify(db: &Db, mib_per_s: Option<u64>, json: bool) -> Result<Answer, Failure> {
    let bar = progress(100, "verify");
    let options = match mib_per_s {
        Some(mib) => VerifyOptions::new().bytes_per_s(mib.saturating_mul(1 << 20)),
        None => VerifyOptions::new(),
    };
    let verified = db.verify_with(options, |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })?;
    bar.finish_and_clear();
    if json {
        let damage: Vec<String> = verified.damage.iter().map(ToString::to_string).collect();
        let (files, records, bytes) = (verified.files, verified.records, verified.bytes);
        println!(
            "{}",
            json!({ "files": files, "records": records, "bytes": bytes, "damage": damage })
        );
    } else {
        println!(
            "{} records in {} files, {} bytes: {} damaged places",
            verified.records,
            verified.files,
            verified.bytes,
            verified.damage.len()
        );
        for damage in &verified.damage {
            println!("  {damage}");
        }
    }
    Ok(if verified.is_sound() { Answer::Done } else { Answer::Damage })
}

pub(crate) fn checkpoint(db: &Db, into: &Path) -> Result<Answer, Failure> {
    db.checkpoint(into)?;
    eprintln!("{}: holds everything up to seq {}", into.display(), db.last_seq());
    Ok(Answer::Done)
}

pub(crate) fn compact(db: &Db) -> Result<Answer, Failure> {
    let before = db.stats().disk_bytes;
    db.compact()?;
    eprintln!("{before} bytes before, {} after", db.stats().disk_bytes);
    Ok(Answer::Done)
}
