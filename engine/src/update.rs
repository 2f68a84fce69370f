//! Changing one record by what it holds: read, decide, and write if nobody was faster, else again.
//! Thin: whether somebody was faster, the tiers say under the append lock.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::keyspace::{ATTEMPTS_MAX, Keyspace};
use crate::limits;
use crate::options::{Durability, check_ttl};
use crate::tiers::read::Hit;
use crate::tiers::write::{Expected, Guard, Mutation, Outcome};

/// What [`Keyspace::update`] makes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// This value; the deadline stays as it is.
    Put(Vec<u8>),
    /// This value with a new TTL.
    PutTtl(Vec<u8>, Duration),
    /// The record goes.
    Delete,
    /// Nothing changes.
    Keep,
}

/// What [`Keyspace::compare_and_swap`] expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect<'a> {
    /// No record.
    Absent,
    /// The version with this `seq`.
    Seq(u64),
    /// This value.
    Value(&'a [u8]),
}

impl Keyspace {
    /// Reads a record and writes what `change` makes of it, as one step. The closure may run more
    /// than once; no lock is held while it runs. Returns the change that was made.
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Change,
    ) -> Result<Change> {
        let key = key.as_ref();
        limits::check_key(key)?;
        self.optimistic(key, "update", |old| {
            let made = change(old.map(|(_, value, _)| value));
            (made.clone(), made)
        })
    }

    /// Writes `new` (or deletes, for `None`) if what is there is as expected; answers whether it
    /// was. The keyspace's default TTL applies.
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expect<'_>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        let key = key.as_ref();
        limits::check_key(key)?;
        self.optimistic(key, "compare and swap", |old| {
            let holds = match expected {
                Expect::Absent => old.is_none(),
                Expect::Seq(seq) => old.is_some_and(|(found, _, _)| found.0 == seq),
                Expect::Value(value) => old.is_some_and(|(_, found, _)| found == value),
            };
            match (holds, new) {
                (false, _) => (false, Change::Keep),
                (true, None) => (true, Change::Delete),
                (true, Some(new)) => (
                    true,
                    match self.reader().state.default_ttl() {
                        Some(ttl) => Change::PutTtl(new.to_vec(), ttl),
                        None => Change::Put(new.to_vec()),
                    },
                ),
            }
        })
    }

    /// Gives a record a new deadline, writing it anew; answers whether it was there.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let key = key.as_ref();
        limits::check_key(key)?;
        check_ttl(Some(ttl))?;
        self.optimistic(key, "touch", |old| match old {
            None => (false, Change::Keep),
            Some((_, value, _)) => (true, Change::PutTtl(value.to_vec(), ttl)),
        })
    }

    /// Reads, decides, and writes if nobody was faster; else again.
    fn optimistic<R>(
        &self,
        key: &[u8],
        doing: &'static str,
        mut decide: impl FnMut(Option<(Seq, &[u8], u64)>) -> (R, Change),
    ) -> Result<R> {
        let tiers = self.tiers();
        tiers.check_open()?;
        if self.reader().state.volatile {
            return self.optimistic_volatile(key, decide);
        }
        for _ in 0..ATTEMPTS_MAX {
            let at = self.reader().key_ref(key)?;
            let moves = tiers.moves();
            let hit = tiers.newest_hit(&at)?;
            let value = hit.as_ref().map(|hit| hit.value(key));
            let old = hit.as_ref().zip(value.as_deref());
            let (result, change) =
                decide(old.map(|(hit, value)| (hit.seq(), value, hit.deadline_ms())));
            let deadline = hit.as_ref().map(Hit::deadline_ms);
            let (new, deadline_ms) = match change {
                Change::Keep => return Ok(result),
                Change::Delete if hit.is_none() => return Ok(result),
                Change::Delete => (None, 0),
                Change::Put(value) => {
                    (Some(value), deadline.unwrap_or_else(|| self.deadline(None)))
                }
                Change::PutTtl(value, ttl) => {
                    check_ttl(Some(ttl))?;
                    (Some(value), self.deadline(Some(ttl)))
                }
            };
            limits::check_value(new.as_deref().unwrap_or(&[]))?;
            let expected = Expected { seq: hit.as_ref().map(Hit::seq), moves };
            let guard = Guard::Version(expected);
            let mutation =
                Mutation::new(tiers, &self.reader().state, key, new.as_deref(), deadline_ms)?;
            if mutation.incarnation != at.incarnation {
                continue; // Cleared since it was read.
            }
            let durability: Durability = tiers.options.durability;
            if let Outcome::Done(_) = tiers.write(&[mutation], guard, durability)? {
                return Ok(result);
            }
        }
        Err(Error::Conflict { doing, attempts: ATTEMPTS_MAX })
    }

    /// The same for memory alone: one step at a time, under a lock of the keyspace's own.
    fn optimistic_volatile<R>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<(Seq, &[u8], u64)>) -> (R, Change),
    ) -> Result<R> {
        loop {
            let at = self.reader().key_ref(key)?;
            let read = self
                .reader()
                .hot_get(&at, |record| (record.seq, record.value.to_vec(), record.deadline_ms));
            let old = read.as_ref().map(|(seq, value, deadline)| (*seq, &value[..], *deadline));
            let (result, change) = decide(old);
            let (new, deadline_ms) = match change {
                Change::Keep => return Ok(result),
                Change::Delete => (None, 0),
                Change::Put(value) => {
                    let deadline = read.as_ref().map(|(_, _, deadline)| *deadline);
                    (Some(value), deadline.unwrap_or_else(|| self.deadline(None)))
                }
                Change::PutTtl(value, ttl) => {
                    check_ttl(Some(ttl))?;
                    (Some(value), self.deadline(Some(ttl)))
                }
            };
            limits::check_value(new.as_deref().unwrap_or(&[]))?;
            let now = self.tiers().clock.now_ms();
            let _one = self.tiers().volatile_changes.lock();
            let same = self
                .reader()
                .hot_get(&at, |record| (record.seq, record.value.to_vec(), record.deadline_ms))
                == read;
            if !same || self.reader().state.incarnation()? != at.incarnation {
                continue;
            }
            let hot = &self.tiers().hot;
            if let Some(value) = new {
                hot.put_volatile(&at.hot(), &value, deadline_ms)?;
                self.reader().state.count_by(i64::from(read.is_none()));
            } else {
                let was = hot.remove_volatile(&at.hot(), now);
                self.reader().state.count_by(-i64::from(was));
            }
            return Ok(result);
        }
    }
}
