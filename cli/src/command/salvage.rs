//! `salvage`: what was kept, what was lost, what is unknown.

use std::path::Path;

use serde_json::{Value, json};
use terrace::repair::{Salvaged, SalvagedKey, salvage};

use crate::output::progress;
use crate::{Answer, Failure};

/// Lines printed of each list; the JSON has them all.
const LINES_MAX: usize = 20;

pub(crate) fn run(from: &Path, into: &Path, json: bool) -> Result<Answer, Failure> {
    let bar = progress(100, "salvage");
    let salvaged = salvage(from, into, |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })?;
    bar.finish_and_clear();
    if json {
        println!("{}", in_json(&salvaged));
    } else {
        print_lists(&salvaged);
    }
    let whole = salvaged.is_whole() && salvaged.damage.is_empty();
    Ok(if whole { Answer::Done } else { Answer::Damage })
}

fn in_json(salvaged: &Salvaged) -> Value {
    let keys = |keys: &[SalvagedKey]| keys.iter().map(key_in_json).collect::<Vec<_>>();
    json!({
        "files": salvaged.files,
        "bytes": salvaged.bytes,
        "kept": salvaged.kept,
        "lost": salvaged.lost,
        "unknown": salvaged.unknown,
        "has_gap": salvaged.has_gap,
        "lost_keys": keys(&salvaged.lost_keys),
        "unknown_keys": keys(&salvaged.unknown_keys),
        "damage": salvaged.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn key_in_json(key: &SalvagedKey) -> Value {
    let text = key.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
    json!({ "keyspace": key.keyspace, "key": text, "lost_seq": key.lost_seq })
}

fn print_lists(salvaged: &Salvaged) {
    let Salvaged { files, bytes, kept, lost, unknown, .. } = salvaged;
    println!("{files} files read, {bytes} bytes: {kept} kept, {lost} lost, {unknown} unknown");
    if salvaged.has_gap {
        println!("records may be missing of which nothing is known");
    }
    for (what, keys) in [("lost", &salvaged.lost_keys), ("unknown", &salvaged.unknown_keys)] {
        for key in keys.iter().take(LINES_MAX) {
            let name = key.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
            let name = name.as_deref().unwrap_or("a key that nothing tells");
            println!("  {what}: {:?} {name:?}, seq {}", key.keyspace, key.lost_seq);
        }
        if keys.len() > LINES_MAX {
            println!("  and {} more; --json lists them", keys.len() - LINES_MAX);
        }
    }
    for damage in salvaged.damage.iter().take(LINES_MAX) {
        println!("  {damage}");
    }
}
