//! `put`, `get`, `delete`, `scan`.

use std::io::{Read, Write};
use std::time::Duration;

use terrace::{Db, Durability, Error, Iter, Keyspace, PutOptions};

use crate::args::{Place, ScanArgs};
use crate::{Answer, Failure, jsonl};

pub(crate) fn put(
    db: &Db,
    key: &str,
    value: &str,
    ttl: Option<Duration>,
    keyspace: &str,
    sync: bool,
) -> Result<Answer, Failure> {
    let mut options = PutOptions::new();
    if let Some(ttl) = ttl {
        options = options.ttl(ttl);
    }
    if sync {
        options = options.durability(Durability::Synced);
    }
    let keyspace = db.keyspace(keyspace)?;
    if value == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        keyspace.put_with(key, bytes, options)?;
    } else {
        keyspace.put_with(key, value, options)?;
    }
    Ok(Answer::Done)
}

/// A keyspace that must be there.
fn existing(db: &Db, name: &str) -> Result<Option<Keyspace>, Failure> {
    match db.keyspace(name) {
        Err(Error::ReadOnly { .. }) => Ok(None),
        found => Ok(Some(found?)),
    }
}

pub(crate) fn get(db: &Db, place: &Place) -> Result<Answer, Failure> {
    let Some(keyspace) = existing(db, &place.keyspace)? else { return Ok(Answer::NotFound) };
    let Some(value) = keyspace.get(&place.key)? else { return Ok(Answer::NotFound) };
    let mut out = std::io::stdout().lock();
    out.write_all(&value)?;
    out.flush()?;
    Ok(Answer::Done)
}

pub(crate) fn delete(db: &Db, place: &Place) -> Result<Answer, Failure> {
    let was = db.keyspace(&place.keyspace)?.delete(&place.key)?;
    Ok(if was { Answer::Done } else { Answer::NotFound })
}

fn iter(keyspace: &Keyspace, scan: &ScanArgs) -> Iter {
    match (&scan.prefix, &scan.from, &scan.to) {
        (Some(prefix), _, _) => keyspace.prefix(prefix),
        (None, None, None) => keyspace.iter(),
        (None, Some(from), None) => keyspace.range::<&str>(from.as_str()..),
        (None, None, Some(to)) => keyspace.range::<&str>(..to.as_str()),
        (None, Some(from), Some(to)) => keyspace.range::<&str>(from.as_str()..to.as_str()),
    }
}

pub(crate) fn scan(db: &Db, scan: &ScanArgs, json: bool) -> Result<Answer, Failure> {
    let Some(keyspace) = existing(db, &scan.keyspace)? else { return Ok(Answer::NotFound) };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut answer = Answer::NotFound;
    for item in iter(&keyspace, scan).take(scan.limit.unwrap_or(usize::MAX)) {
        let (key, value) = item?;
        let value = (!scan.keys_only).then_some(&value[..]);
        if json {
            let expires = keyspace.info(&key)?.and_then(|info| info.expires_at);
            writeln!(out, "{}", jsonl::encode(None, &key, value, expires))?;
        } else {
            out.write_all(&key)?;
            if let Some(value) = value {
                out.write_all(b"\t")?;
                out.write_all(value)?;
            }
            out.write_all(b"\n")?;
        }
        answer = Answer::Done;
    }
    out.flush()?;
    Ok(answer)
}
