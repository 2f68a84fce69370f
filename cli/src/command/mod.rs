//! The commands that work on a named store, one file each where they are long.

pub(crate) mod bench;
pub(crate) mod demo;
mod records;
mod report;
pub(crate) mod salvage;
pub(crate) mod top;
mod transfer;

use terrace::Db;

use crate::args::Command;
use crate::{Answer, Failure};

pub(crate) fn run(db: &Db, command: Command, json: bool) -> Result<Answer, Failure> {
    match command {
        Command::Put { key, value, ttl, keyspace, sync } => {
            records::put(db, &key, &value, ttl, &keyspace, sync)
        }
        Command::Get(place) => records::get(db, &place),
        Command::Delete(place) => records::delete(db, &place),
        Command::Scan(scan) => records::scan(db, &scan, json),
        Command::Import { files, dir, keyspace } => match dir {
            Some(dir) => transfer::import_dir(db, &dir, &keyspace),
            None => transfer::import(db, &files, &keyspace),
        },
        Command::Export { out, keyspace } => {
            transfer::export(db, out.as_deref(), keyspace.as_deref())
        }
        Command::Stats => report::stats(db, json),
        Command::Ledger => report::ledger(db, json),
        Command::Verify { mib_per_s } => report::verify(db, mib_per_s, json),
        Command::Checkpoint { into } => report::checkpoint(db, &into),
        Command::Compact => report::compact(db),
        Command::Salvage { .. }
        | Command::Top(_)
        | Command::Bench(_)
        | Command::Demo(_)
        | Command::DemoWriter(_) => {
            Err(Failure::Usage("this command opens no store, or one of its own".into()))
        }
    }
}
