//! The store over a `PostgreSQL` server: three tables, one transaction a commit.
//! Knows their columns; the rules of a store are kept here, in Rust.
//!
//! A commit locks its namespace's row of `mem_seq` first. So writers of a namespace follow each
//! other, `seq` has no gaps, and its order is that of commits. Deadlines are by the server's clock.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postgres::{Client, Config, NoTls, Row, Transaction};

use crate::clock::{Clock, Millis, Stopwatch};
use crate::error::{Error, Result};
use crate::store::{
    Batch, Change, ChangeKind, ChangeLog, Commit, Entry, Guard, LogRetention, Ns, Op, Scan, Seq,
    Store, Version, check_key, deadline,
};

/// Connections that are kept for the next call.
const IDLE_MAX: usize = 8;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How often changes are looked for: soon at first, then less.
const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_LAST: Duration = Duration::from_millis(200);
/// Changes over the bounds of a log that one commit removes, besides as many as it adds.
const TRIM_ROWS: i64 = 64;
/// Expired rows that one commit removes.
const SWEEP_ROWS: i64 = 64;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS mem_seq (
    ns bytea PRIMARY KEY, seq bigint NOT NULL DEFAULT 0, clock bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS mem_kv (
    ns bytea NOT NULL, key bytea NOT NULL, value bytea NOT NULL, version bigint NOT NULL,
    deadline bigint, PRIMARY KEY (ns, key));
CREATE TABLE IF NOT EXISTS mem_log (
    ns bytea NOT NULL, seq bigint NOT NULL, key bytea NOT NULL, deleted boolean NOT NULL,
    at bigint NOT NULL, PRIMARY KEY (ns, seq));
CREATE INDEX IF NOT EXISTS mem_kv_deadline ON mem_kv (ns, deadline) WHERE deadline IS NOT NULL;
";
/// The server's time, not before what this namespace has seen.
const NOW: &str = "GREATEST((extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
                   COALESCE((SELECT clock FROM mem_seq WHERE ns = $1), 0))";

/// A store over a `PostgreSQL` server. Clones share its connections.
///
/// The library below waits on a runtime of its own and must not be called from within another one:
/// there, use a thread. `Synced` is what the server's `synchronous_commit` says.
#[derive(Clone)]
pub struct PgStore {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    /// Protects: connections that nobody uses now.
    idle: Mutex<Vec<Client>>,
    /// For when the server cannot be asked for its time.
    clock: Clock,
    latest_ms: AtomicU64,
}

impl fmt::Debug for PgStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore").field("hosts", &self.shared.config.get_hosts()).finish()
    }
}

/// A record as it stands, whether or not its time is over.
struct Stored {
    version: Version,
    deadline: Option<Millis>,
}

/// What a commit writes.
#[derive(Default)]
struct Staged {
    keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    versions: Vec<i64>,
    deadlines: Vec<Option<i64>>,
    deleted: Vec<Vec<u8>>,
    log_keys: Vec<Vec<u8>>,
    log_deleted: Vec<bool>,
}

impl PgStore {
    /// The store at this address, such as `host=127.0.0.1 user=me dbname=memory`. Its tables are
    /// made when they are not there. Without TLS: for a server on this machine or behind a tunnel.
    ///
    /// Errors: [`Error::Backend`] when the server cannot be reached, or refuses.
    pub fn connect(address: &str) -> Result<Self> {
        let mut config: Config = address.parse().map_err(Error::backend)?;
        config.connect_timeout(CONNECT_WAIT);
        let (idle, clock, latest_ms) = (Mutex::default(), Clock::system(), AtomicU64::new(0));
        let this = Self { shared: Arc::new(Shared { config, idle, clock, latest_ms }) };
        this.with(|client| {
            // Two that make the tables at once would hinder each other.
            let lock = "SELECT pg_advisory_xact_lock(7305808869231650157)";
            let mut transaction = client.transaction().map_err(Error::backend)?;
            transaction.batch_execute(lock).map_err(Error::backend)?;
            transaction.batch_execute(TABLES).map_err(Error::backend)?;
            transaction.commit().map_err(Error::backend)
        })?;
        Ok(this)
    }

    /// Runs a call on a connection of its own; one that the server closed is not used again.
    fn with<T>(&self, call: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        let idle = self.shared.idle.lock().pop().filter(|client| !client.is_closed());
        let mut client = match idle {
            Some(client) => client,
            None => self.shared.config.connect(NoTls).map_err(Error::backend)?,
        };
        let done = call(&mut client);
        let mut idle = self.shared.idle.lock();
        if !client.is_closed() && idle.len() < IDLE_MAX {
            idle.push(client);
        }
        done
    }

    fn server_now(&self) -> Result<Millis> {
        let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let row = self.with(|client| client.query_one(query, &[]).map_err(Error::backend))?;
        let now = unsigned(column(&row, 0)?);
        let before = self.shared.latest_ms.fetch_max(now, Ordering::Relaxed);
        Ok(Millis(before.max(now)))
    }

    /// Keeps that the clock was so late: what was answered as expired stays so.
    fn mark_clock(&self, ns: &Ns, now: Millis) -> Result<()> {
        let query = "INSERT INTO mem_seq (ns, clock) VALUES ($1, $2) \
                     ON CONFLICT (ns) DO UPDATE SET clock = GREATEST(mem_seq.clock, $2)";
        let now = signed(now.0);
        self.with(|client| client.execute(query, &[&bytes_of(ns), &now]).map_err(Error::backend))?;
        Ok(())
    }

    fn changes_now(&self, ns: &Ns, after: Seq, limit: usize) -> Result<Vec<Change>> {
        let query = "SELECT seq, key, deleted FROM mem_log \
                     WHERE ns = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        let params = (bytes_of(ns), signed(after.0), limit);
        let rows = self.with(|client| {
            client.query(query, &[&params.0, &params.1, &params.2]).map_err(Error::backend)
        })?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let seq = unsigned(column(row, 0)?);
            let key: Vec<u8> = column(row, 1)?;
            let kind = if column(row, 2)? { ChangeKind::Delete } else { ChangeKind::Put };
            found.push(Change { seq: Seq(seq), key: key.into(), version: Version(seq), kind });
        }
        match found.first() {
            Some(first) if first.seq.0 > after.0.saturating_add(1) => {
                Err(Error::Truncated { first: first.seq })
            }
            _ => Ok(found),
        }
    }
}

impl Store for PgStore {
    fn now(&self) -> Millis {
        let latest = || {
            let own = self.shared.clock.now().0;
            Millis(self.shared.latest_ms.fetch_max(own, Ordering::Relaxed).max(own))
        };
        self.server_now().unwrap_or_else(|_| latest())
    }

    fn get(&self, ns: &Ns, key: &[u8]) -> Result<Option<Entry>> {
        check_key(key)?;
        let query = format!(
            "SELECT value, version, deadline, {NOW} FROM mem_kv WHERE ns = $1 AND key = $2"
        );
        let row = self.with(|client| {
            client.query_opt(&query, &[&bytes_of(ns), &key]).map_err(Error::backend)
        })?;
        let Some(row) = row else { return Ok(None) };
        let (entry, now) = entry(&row, 0)?;
        if entry.deadline.is_some_and(|deadline| deadline <= now) {
            self.mark_clock(ns, now)?;
            return Ok(None);
        }
        Ok(Some(entry))
    }

    fn scan(&self, ns: &Ns, scan: Scan) -> Result<Vec<(Bytes, Entry)>> {
        scan.check()?;
        if scan.is_empty() || scan.limit == 0 {
            return Ok(Vec::new());
        }
        let (low, low_sign) = match &scan.from {
            Bound::Unbounded => (&[][..], ">="),
            Bound::Included(key) => (&key[..], ">="),
            Bound::Excluded(key) => (&key[..], ">"),
        };
        let (high, high_clause) = match &scan.to {
            Bound::Unbounded => (&[][..], "$3::bytea IS NOT NULL"),
            Bound::Included(key) => (&key[..], "key <= $3"),
            Bound::Excluded(key) => (&key[..], "key < $3"),
        };
        let order = if scan.reverse { "DESC" } else { "ASC" };
        let query = format!(
            "WITH moment AS MATERIALIZED (SELECT {NOW} AS now) \
             SELECT key, value, version, deadline, moment.now FROM mem_kv, moment \
             WHERE ns = $1 AND key {low_sign} $2 AND {high_clause} \
             AND (deadline IS NULL OR deadline > moment.now) ORDER BY key {order} LIMIT $4"
        );
        let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
        let rows = self.with(|client| {
            client.query(&query, &[&bytes_of(ns), &low, &high, &limit]).map_err(Error::backend)
        })?;
        let pair = |row: &Row| {
            let key: Vec<u8> = column(row, 0)?;
            Ok((key.into(), entry(row, 1)?.0))
        };
        rows.iter().map(pair).collect()
    }

    fn commit(&self, batch: Batch) -> Result<Commit> {
        batch.check()?;
        self.with(|client| {
            let mut transaction = client.transaction().map_err(Error::backend)?;
            let seq = commit(&mut transaction, &batch)?;
            transaction.commit().map_err(Error::backend)?;
            Ok(Commit { seq: Seq(seq), version: Version(seq) })
        })
    }

    fn changes(&self, ns: &Ns, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Change>> {
        if ns.log() == ChangeLog::Off {
            return Err(Error::Invalid("changes of a namespace without a change log"));
        }
        Error::check_limit("changes of a call", limit, crate::store::SCAN_ROWS_MAX)?;
        let (watch, mut pause) = (Stopwatch::start(wait), POLL_FIRST);
        loop {
            let mut found = self.changes_now(ns, after, limit)?;
            found.truncate(limit);
            if !found.is_empty() || limit == 0 {
                return Ok(found);
            }
            let Some(left) = watch.left() else { return Ok(found) };
            std::thread::park_timeout(left.min(pause));
            pause = (pause * 2).min(POLL_LAST);
        }
    }
}

/// Does a batch within a transaction; answers the last place.
fn commit(transaction: &mut Transaction<'_>, batch: &Batch) -> Result<u64> {
    let ns = bytes_of(&batch.ns);
    let begin = "INSERT INTO mem_seq (ns) VALUES ($1) ON CONFLICT (ns) DO NOTHING";
    transaction.execute(begin, &[&ns]).map_err(Error::backend)?;
    // The lock of the namespace; only then what is there may be read.
    let lock = "SELECT seq FROM mem_seq WHERE ns = $1 FOR UPDATE";
    let row = transaction.query_one(lock, &[&ns]).map_err(Error::backend)?;
    let mut seq = unsigned(column(&row, 0)?);
    let row = transaction.query_one(&format!("SELECT {NOW}"), &[&ns]).map_err(Error::backend)?;
    let now = Millis(unsigned(column(&row, 0)?));
    let stored = read_keys(transaction, batch)?;
    let live = |key: &Bytes| {
        stored.get(&key[..]).filter(|one| one.deadline.is_none_or(|deadline| deadline > now))
    };
    for op in &batch.ops {
        let Op::Expect { key, is } = op else { continue };
        let found = live(key).map(|one| one.version);
        let holds = match is {
            Guard::Absent => found.is_none(),
            Guard::Any => found.is_some(),
            Guard::Version(version) => found == Some(*version),
        };
        if !holds {
            return Err(Error::Conflict { key: key.clone(), found });
        }
    }
    let mut staged = Staged::default();
    for op in &batch.ops {
        match op {
            Op::Put { key, value, ttl } => {
                let kept = live(key).and_then(|one| one.deadline);
                let deadline = deadline(*ttl, now, kept)?;
                seq += 1;
                staged.keys.push(key.to_vec());
                staged.values.push(value.to_vec());
                staged.versions.push(signed(seq));
                staged.deadlines.push(deadline.map(|deadline| signed(deadline.0)));
                staged.log_keys.push(key.to_vec());
                staged.log_deleted.push(false);
            }
            Op::Delete { key } if live(key).is_some() => {
                seq += 1;
                staged.deleted.push(key.to_vec());
                staged.log_keys.push(key.to_vec());
                staged.log_deleted.push(true);
            }
            Op::Delete { .. } | Op::Expect { .. } => {}
        }
    }
    write(transaction, &batch.ns, &staged, seq, now)?;
    Ok(seq)
}

/// What stands under the keys of a batch.
fn read_keys(transaction: &mut Transaction<'_>, batch: &Batch) -> Result<HashMap<Vec<u8>, Stored>> {
    let keys: HashSet<&[u8]> = batch
        .ops
        .iter()
        .map(|op| match op {
            Op::Put { key, .. } | Op::Delete { key } | Op::Expect { key, .. } => &key[..],
        })
        .collect();
    let keys: Vec<&[u8]> = keys.into_iter().collect();
    let query = "SELECT key, version, deadline FROM mem_kv WHERE ns = $1 AND key = ANY($2)";
    let rows = transaction.query(query, &[&bytes_of(&batch.ns), &keys]).map_err(Error::backend)?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let deadline: Option<i64> = column(row, 2)?;
        let version = Version(unsigned(column(row, 1)?));
        let deadline = deadline.map(|deadline| Millis(unsigned(deadline)));
        found.insert(column(row, 0)?, Stored { version, deadline });
    }
    Ok(found)
}

fn write(
    transaction: &mut Transaction<'_>,
    ns: &Ns,
    staged: &Staged,
    seq: u64,
    now: Millis,
) -> Result<()> {
    let (name, at, last) = (bytes_of(ns), signed(now.0), signed(seq));
    let first = last - i64::try_from(staged.log_keys.len()).unwrap_or(0) + 1;
    let Staged { keys, values, versions, deadlines, deleted, log_keys, log_deleted } = staged;
    let mut run = |query: &str, params: &[&(dyn postgres::types::ToSql + Sync)]| {
        transaction.execute(query, params).map_err(Error::backend).map(|_| ())
    };
    if !deleted.is_empty() {
        run("DELETE FROM mem_kv WHERE ns = $1 AND key = ANY($2)", &[&name, deleted])?;
    }
    if !keys.is_empty() {
        let query = "INSERT INTO mem_kv (ns, key, value, version, deadline) \
             SELECT $1::bytea, * FROM UNNEST($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[]) \
             ON CONFLICT (ns, key) DO UPDATE SET value = EXCLUDED.value, \
             version = EXCLUDED.version, deadline = EXCLUDED.deadline";
        run(query, &[&name, keys, values, versions, deadlines])?;
    }
    if let ChangeLog::Keep(LogRetention { count, age, bytes }) = ns.log() {
        let query = "INSERT INTO mem_log (ns, seq, key, deleted, at) \
             SELECT $1::bytea, $2::bigint + n - 1, k, d, $5::bigint \
             FROM UNNEST($3::bytea[], $4::boolean[]) WITH ORDINALITY AS t (k, d, n)";
        run(query, &[&name, &first, log_keys, log_deleted, &at])?;
        // From the newest back: what is over one of the bounds goes, some at a time.
        let count = signed(count.max(1));
        let age = age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let most = TRIM_ROWS + i64::try_from(log_keys.len()).unwrap_or(0);
        let bytes = bytes.map(signed);
        let query = "DELETE FROM mem_log WHERE ns = $1 AND seq IN ( \
             SELECT seq FROM (SELECT seq, at, \
                 row_number() OVER (ORDER BY seq DESC) AS place, \
                 sum(length(key)) OVER (ORDER BY seq DESC) AS size \
                 FROM mem_log WHERE ns = $1) AS ranked \
             WHERE place > 1 AND (place > $2 OR ($3::bigint IS NOT NULL AND $5::bigint - at > $3) \
                 OR ($4::bigint IS NOT NULL AND size > $4)) ORDER BY seq LIMIT $6)";
        // Counting all of a log is dear: only when it may be over.
        if age.is_some() || bytes.is_some() {
            run(query, &[&name, &count, &age, &bytes, &at, &most])?;
        } else {
            let query = "DELETE FROM mem_log WHERE ns = $1 AND seq IN (SELECT seq FROM mem_log \
                 WHERE ns = $1 AND seq <= $2 ORDER BY seq LIMIT $3)";
            run(query, &[&name, &(last - count), &most])?;
        }
    }
    let query = "DELETE FROM mem_kv WHERE ns = $1 AND key IN (SELECT key FROM mem_kv \
         WHERE ns = $1 AND deadline <= $2 LIMIT $3)";
    run(query, &[&name, &at, &SWEEP_ROWS])?;
    run("UPDATE mem_seq SET seq = $2, clock = $3 WHERE ns = $1", &[&name, &last, &at])
}

/// An entry in four columns, the last of which is the moment of reading.
fn entry(row: &Row, first: usize) -> Result<(Entry, Millis)> {
    let value: Vec<u8> = column(row, first)?;
    let version = Version(unsigned(column(row, first + 1)?));
    let deadline: Option<i64> = column(row, first + 2)?;
    let deadline = deadline.map(|deadline| Millis(unsigned(deadline)));
    let now = Millis(unsigned(column(row, first + 3)?));
    Ok((Entry { value: value.into(), version, deadline }, now))
}

fn column<'r, T: postgres::types::FromSql<'r>>(row: &'r Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(Error::backend)
}

/// A name may hold a zero byte, which a text of the server may not.
fn bytes_of(ns: &Ns) -> &[u8] {
    ns.name().as_bytes()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
