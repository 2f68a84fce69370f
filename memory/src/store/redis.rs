//! The store over a Redis server, 6.2 or newer, without modules.
//! Knows the server's keys; what a commit does there, `commit.lua` says.
//!
//! All keys of a namespace have its name as their hash tag, so that they lie together in a cluster.
//! `m` is a hash of figures, `k` a sorted set of keys for their order, `l` a stream of changes, and
//! `r:KEY` a hash for each record: value, version, deadline. Deadlines are by the server's clock.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Client, Connection, Script, ScriptInvocation, Value};

use crate::clock::{Clock, Millis, Stopwatch};
use crate::error::{Error, Result};
use crate::store::{
    Batch, Change, ChangeKind, ChangeLog, Commit, Entry, Guard, Ns, Op, Scan, Seq, Store, Ttl,
    Version, check_key,
};

/// How long the server may take to accept a connection, and to answer.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Connections that are kept for the next call.
const IDLE_MAX: usize = 8;
/// How long one wait for changes blocks at the server.
const BLOCK_MAX: Duration = Duration::from_secs(1);
/// The greatest number that the server's scripts hold exactly. Later deadlines become this.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// A store over a Redis server. Clones share its connections.
///
/// Durability is the server's: `Synced` waits for nothing more than its answer.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    prefix: String,
    /// Protects: connections that nobody uses now.
    idle: Mutex<Vec<Connection>>,
    /// For when the server cannot be asked for its time.
    clock: Clock,
    latest_ms: AtomicU64,
    commit: Script,
    read: Script,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.shared.prefix).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// The store at this address, such as `redis://127.0.0.1/`, with all keys behind `prefix`.
    ///
    /// Errors: [`Error::Backend`] when the server cannot be reached.
    pub fn connect(url: &str, prefix: &str) -> Result<Self> {
        let shared = Shared {
            client: Client::open(url).map_err(Error::backend)?,
            prefix: plain(prefix),
            idle: Mutex::default(),
            clock: Clock::system(),
            latest_ms: AtomicU64::new(0),
            commit: Script::new(include_str!("redis/commit.lua")),
            read: Script::new(include_str!("redis/read.lua")),
        };
        let this = Self { shared: Arc::new(shared) };
        this.server_now()?;
        Ok(this)
    }

    fn key(&self, ns: &Ns, kind: &str) -> String {
        format!("{}:{{{}}}:{kind}", self.shared.prefix, plain(ns.name()))
    }

    /// Runs a call on a connection of its own; one that failed is not used again.
    fn with<T>(&self, call: impl FnOnce(&mut Connection) -> redis::RedisResult<T>) -> Result<T> {
        let idle = self.shared.idle.lock().pop();
        let mut connection = idle.map_or_else(|| self.open(), Ok)?;
        let done = call(&mut connection).map_err(Error::backend)?;
        let mut idle = self.shared.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(done)
    }

    fn open(&self) -> Result<Connection> {
        let new = self.shared.client.get_connection_with_timeout(CONNECT_WAIT);
        let new = new.map_err(Error::backend)?;
        new.set_read_timeout(Some(ANSWER_WAIT)).map_err(Error::backend)?;
        new.set_write_timeout(Some(ANSWER_WAIT)).map_err(Error::backend)?;
        Ok(new)
    }

    fn server_now(&self) -> Result<Millis> {
        let (seconds, micros): (u64, u64) = self.with(|one| redis::cmd("TIME").query(one))?;
        let now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        let before = self.shared.latest_ms.fetch_max(now, Ordering::Relaxed);
        Ok(Millis(before.max(now)))
    }

    fn read(&self, ns: &Ns, words: &[&[u8]]) -> Result<Vec<(Bytes, Entry)>> {
        let mut call = self.shared.read.prepare_invoke();
        call.key(self.key(ns, "m")).key(self.key(ns, "k")).arg(self.key(ns, "r:"));
        for word in words {
            call.arg(*word);
        }
        let flat: Vec<Vec<u8>> = self.with(|one| call.invoke(one))?;
        let mut found = Vec::with_capacity(flat.len() / 4);
        let mut fields = flat.into_iter();
        while let (Some(key), Some(version), Some(deadline), Some(value)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        {
            let deadline =
                if deadline.is_empty() { None } else { Some(Millis(number(&deadline)?)) };
            let version = Version(number(&version)?);
            found.push((key.into(), Entry { value: value.into(), version, deadline }));
        }
        Ok(found)
    }

    fn changes_now(&self, ns: &Ns, after: Seq, limit: usize) -> Result<Vec<Change>> {
        let from = format!("({}-0", after.0.min(NUMBER_MAX));
        let rows: Vec<(String, Vec<Vec<u8>>)> = self.with(|one| {
            let mut call = redis::cmd("XRANGE");
            call.arg(self.key(ns, "l")).arg(from).arg("+").arg("COUNT").arg(limit.max(1)).query(one)
        })?;
        let mut found = Vec::with_capacity(rows.len());
        for (id, fields) in rows {
            let [_, kind, _, key, ..] = fields.as_slice() else {
                return Err(Error::corrupt("change", "fields of a stream entry"));
            };
            let seq = number(id.split('-').next().unwrap_or("").as_bytes())?;
            let kind = if kind == b"P" { ChangeKind::Put } else { ChangeKind::Delete };
            let key = Bytes::copy_from_slice(key);
            found.push(Change { seq: Seq(seq), key, version: Version(seq), kind });
        }
        match found.first() {
            Some(first) if first.seq.0 > after.0.saturating_add(1) => {
                Err(Error::Truncated { first: first.seq })
            }
            _ => {
                found.truncate(limit);
                Ok(found)
            }
        }
    }

    /// Blocks at the server until there is something behind `after`, or the time is over.
    fn block(&self, ns: &Ns, after: Seq, wait: Duration) -> Result<()> {
        let ms = u64::try_from(wait.min(BLOCK_MAX).as_millis()).unwrap_or(0).max(1);
        let mut call = redis::cmd("XREAD");
        call.arg("BLOCK").arg(ms).arg("COUNT").arg(1).arg("STREAMS").arg(self.key(ns, "l"));
        call.arg(format!("{}-0", after.0.min(NUMBER_MAX)));
        self.with(|one| call.query::<Value>(one)).map(|_| ())
    }

    fn invocation(&self, batch: &Batch) -> ScriptInvocation<'_> {
        let ns = &batch.ns;
        let mut call = self.shared.commit.prepare_invoke();
        call.key(self.key(ns, "m")).key(self.key(ns, "k")).key(self.key(ns, "l"));
        call.arg(self.key(ns, "r:"));
        match ns.log() {
            ChangeLog::Off => {
                call.arg(0).arg(0).arg(-1).arg(-1);
            }
            ChangeLog::Keep(keep) => {
                let age = keep.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(NUMBER_MAX));
                let bound = |most: Option<u64>| most.map_or("-1".into(), |most| most.to_string());
                call.arg(1).arg(keep.count).arg(bound(age)).arg(bound(keep.bytes));
            }
        }
        for op in &batch.ops {
            match op {
                Op::Put { key, value, ttl } => {
                    let (kind, ms) = match ttl {
                        Ttl::Keep => ("keep", 0),
                        Ttl::Never => ("never", 0),
                        // Rounded up to whole milliseconds, as all stores do.
                        Ttl::For(time) => ("for", Millis(0).after(*time).0.min(NUMBER_MAX)),
                        Ttl::Until(moment) => ("until", moment.0.min(NUMBER_MAX)),
                    };
                    call.arg("P").arg(&key[..]).arg(&value[..]).arg(kind).arg(ms);
                }
                Op::Delete { key } => {
                    call.arg("D").arg(&key[..]);
                }
                Op::Expect { key, is } => {
                    let (kind, version) = match is {
                        Guard::Absent => ("absent", 0),
                        Guard::Any => ("any", 0),
                        Guard::Version(version) => ("version", version.0),
                    };
                    call.arg("E").arg(&key[..]).arg(kind).arg(version);
                }
            }
        }
        call
    }
}

impl Store for RedisStore {
    fn now(&self) -> Millis {
        let latest = || {
            let own = self.shared.clock.now().0;
            Millis(self.shared.latest_ms.fetch_max(own, Ordering::Relaxed).max(own))
        };
        self.server_now().unwrap_or_else(|_| latest())
    }

    fn get(&self, ns: &Ns, key: &[u8]) -> Result<Option<Entry>> {
        check_key(key)?;
        Ok(self.read(ns, &[b"get", key])?.pop().map(|(_, entry)| entry))
    }

    fn scan(&self, ns: &Ns, scan: Scan) -> Result<Vec<(Bytes, Entry)>> {
        scan.check()?;
        if scan.is_empty() || scan.limit == 0 {
            return Ok(Vec::new());
        }
        let bound = |bound: &Bound<Bytes>, open: &[u8]| match bound {
            Bound::Unbounded => open.to_vec(),
            Bound::Included(key) => [b"[", &key[..]].concat(),
            Bound::Excluded(key) => [b"(", &key[..]].concat(),
        };
        let (from, to) = (bound(&scan.from, b"-"), bound(&scan.to, b"+"));
        let limit = scan.limit.to_string();
        if scan.reverse {
            self.read(ns, &[b"back", &to, &from, limit.as_bytes()])
        } else {
            self.read(ns, &[b"scan", &from, &to, limit.as_bytes()])
        }
    }

    fn commit(&self, batch: Batch) -> Result<Commit> {
        batch.check()?;
        let call = self.invocation(&batch);
        let answer: Vec<Vec<u8>> = self.with(|one| call.invoke(one))?;
        let field = |i: usize| answer.get(i).map_or(&b""[..], Vec::as_slice);
        match field(0) {
            b"done" => {
                let seq = number(field(1))?;
                Ok(Commit { seq: Seq(seq), version: Version(seq) })
            }
            b"conflict" => {
                let found = field(2);
                let found = if found.is_empty() { None } else { Some(Version(number(found)?)) };
                Err(Error::Conflict { key: Bytes::copy_from_slice(field(1)), found })
            }
            b"passed" => Err(Error::Invalid("a deadline that has passed")),
            _ => Err(Error::corrupt("answer of a commit", format!("{} fields", answer.len()))),
        }
    }

    fn changes(&self, ns: &Ns, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Change>> {
        if ns.log() == ChangeLog::Off {
            return Err(Error::Invalid("changes of a namespace without a change log"));
        }
        Error::check_limit("changes of a call", limit, crate::store::SCAN_ROWS_MAX)?;
        let watch = Stopwatch::start(wait);
        loop {
            let found = self.changes_now(ns, after, limit)?;
            if !found.is_empty() || limit == 0 {
                return Ok(found);
            }
            let Some(left) = watch.left() else { return Ok(found) };
            self.block(ns, after, left)?;
        }
    }
}

/// A name without the signs that keys are made of.
fn plain(name: &str) -> String {
    name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

fn number(text: &[u8]) -> Result<u64> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Error::corrupt("number of the server", text.escape_ascii().to_string()))
}

#[cfg(test)]
#[path = "redis_tests.rs"]
mod tests;
