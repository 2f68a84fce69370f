//! The keyspaces of an open store, by name and by incarnation.
//! Knows names, lives and options; knows nothing of records.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::format::checksum::Begun;
use crate::format::manifest::KeyspaceFacts;
use crate::ids::{Incarnation, Seq};
use crate::options::KeyspaceOptions;

/// The zstd level of a keyspace that names none.
const LEVEL_DEFAULT: i32 = 3;

/// One keyspace. Handles share it.
#[derive(Debug)]
pub(crate) struct KeyspaceState {
    pub name: String,
    pub volatile: bool,
    pub unordered: bool,
    pub level: i32,
    default_ttl_ms: AtomicU64,
    /// 0 once the keyspace was dropped.
    incarnation: AtomicU32,
    /// Keys that are there, as far as is known without reading archives.
    count: AtomicI64,
    /// A checksum that is begun: of it others are made.
    pub sums: Begun,
    /// Ended lives that a snapshot may ask for, each with the `seq` that ended it, in order.
    past: RwLock<Vec<(Seq, Incarnation)>>,
}

impl KeyspaceState {
    pub(crate) fn of(facts: &KeyspaceFacts) -> Arc<Self> {
        Arc::new(Self {
            name: facts.name.clone(),
            volatile: facts.volatile,
            unordered: facts.unordered,
            level: facts.compression_level,
            default_ttl_ms: AtomicU64::new(facts.default_ttl_ms),
            incarnation: AtomicU32::new(facts.incarnation),
            count: AtomicI64::new(0),
            sums: Begun::bound(0),
            past: RwLock::new(Vec::new()),
        })
    }

    /// The life that the name means now; fails once it was dropped.
    pub(crate) fn incarnation(&self) -> Result<Incarnation> {
        match self.incarnation.load(Ordering::Acquire) {
            0 => Err(Error::invalid("keyspace", "a dropped one", "one that exists")),
            number => Ok(Incarnation(number)),
        }
    }

    /// The life that the name meant at a moment that is held.
    pub(crate) fn incarnation_at(&self, moment: Seq) -> Result<Incarnation> {
        let past = self.past.read();
        match past.iter().find(|(ended, _)| *ended > moment) {
            Some((_, incarnation)) => Ok(*incarnation),
            None => self.incarnation(),
        }
    }

    pub(crate) fn set_incarnation(&self, number: u32) {
        self.incarnation.store(number, Ordering::Release);
    }

    pub(crate) fn default_ttl(&self) -> Option<Duration> {
        match self.default_ttl_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    pub(crate) fn count_by(&self, by: i64) {
        self.count.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn reset_count(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(crate) fn facts(&self, incarnation: u32, seq: u64) -> KeyspaceFacts {
        KeyspaceFacts {
            name: self.name.clone(),
            incarnation,
            seq,
            volatile: self.volatile,
            unordered: self.unordered,
            default_ttl_ms: self.default_ttl_ms.load(Ordering::Relaxed),
            compression_level: self.level,
        }
    }

    /// Whether these options are what the keyspace was created with; adopts a new default TTL.
    pub(crate) fn reopen(&self, options: &KeyspaceOptions) -> Result<bool> {
        let differs = |what, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
            let expected = format!("{expected}, as keyspace {:?} was created", self.name);
            Err(Error::invalid(what, found, expected))
        };
        if options.volatile != self.volatile {
            return differs("volatile", &options.volatile, &self.volatile);
        }
        if options.unordered != self.unordered {
            return differs("unordered", &options.unordered, &self.unordered);
        }
        if let Some(level) = options.compression_level
            && level != self.level
        {
            return differs("compression_level", &level, &self.level);
        }
        let Some(ttl) = options.default_ttl else { return Ok(false) };
        let ms = ttl_ms(ttl);
        Ok(self.default_ttl_ms.swap(ms, Ordering::Relaxed) != ms)
    }
}

/// Facts of a keyspace that is created with these options.
pub(crate) fn new_facts(name: &str, incarnation: u32, options: &KeyspaceOptions) -> KeyspaceFacts {
    KeyspaceFacts {
        name: name.to_owned(),
        incarnation,
        seq: 0,
        volatile: options.volatile,
        unordered: options.unordered,
        default_ttl_ms: options.default_ttl.map_or(0, ttl_ms),
        compression_level: options.compression_level.unwrap_or(LEVEL_DEFAULT),
    }
}

fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// All keyspaces that exist.
#[derive(Debug, Default)]
pub(crate) struct Keyspaces {
    /// Protects: both maps. A leaf lock.
    maps: RwLock<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_name: HashMap<String, Arc<KeyspaceState>>,
    by_incarnation: HashMap<u32, Arc<KeyspaceState>>,
    /// Ended incarnations whose records a snapshot still needs, with the `seq` that ended each.
    kept: HashMap<u32, (Seq, Arc<KeyspaceState>)>,
}

impl Keyspaces {
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<KeyspaceState>> {
        self.maps.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_incarnation(&self, incarnation: Incarnation) -> Option<Arc<KeyspaceState>> {
        self.maps.read().by_incarnation.get(&incarnation.0).cloned()
    }

    /// The keyspace for which records of this incarnation count.
    pub(crate) fn counted(&self, incarnation: Incarnation) -> Option<Arc<KeyspaceState>> {
        let maps = self.maps.read();
        let current = maps.by_incarnation.get(&incarnation.0);
        let kept = || maps.kept.get(&incarnation.0).map(|(_, state)| state);
        current.or_else(kept).cloned()
    }

    /// Whether records of this incarnation count: it is current, or kept for a snapshot.
    pub(crate) fn is_kept(&self, incarnation: Incarnation) -> bool {
        let maps = self.maps.read();
        maps.by_incarnation.contains_key(&incarnation.0) || maps.kept.contains_key(&incarnation.0)
    }

    /// Whether the keys of this incarnation are kept in order.
    pub(crate) fn is_ordered(&self, incarnation: Incarnation) -> bool {
        let maps = self.maps.read();
        let current = maps.by_incarnation.get(&incarnation.0);
        let kept = || maps.kept.get(&incarnation.0).map(|(_, state)| state);
        current.or_else(kept).is_some_and(|state| !state.unordered && !state.volatile)
    }

    /// Lets go of ended incarnations that nobody needs; returns them.
    pub(crate) fn release_kept(&self, needed: impl Fn(Seq) -> bool) -> Vec<Incarnation> {
        let mut maps = self.maps.write();
        let mut released = Vec::new();
        maps.kept.retain(|&incarnation, (ended, state)| {
            let keep = needed(*ended);
            if !keep {
                released.push(Incarnation(incarnation));
                state.past.write().retain(|(_, past)| past.0 != incarnation);
            }
            keep
        });
        released
    }

    pub(crate) fn all(&self) -> Vec<Arc<KeyspaceState>> {
        let mut all: Vec<_> = self.maps.read().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn insert(&self, state: Arc<KeyspaceState>) {
        let Ok(incarnation) = state.incarnation() else { return };
        let mut maps = self.maps.write();
        maps.by_incarnation.insert(incarnation.0, Arc::clone(&state));
        maps.by_name.insert(state.name.clone(), state);
    }

    /// The incarnation ended at `seq`; `next` is the one that follows, or 0 when the keyspace is
    /// dropped. `keep` says that a snapshot needs its records.
    pub(crate) fn end(&self, ended: Incarnation, next: u32, seq: Seq, keep: bool) {
        let mut maps = self.maps.write();
        let Some(state) = maps.by_incarnation.remove(&ended.0) else { return };
        if keep {
            state.past.write().push((seq, ended));
            maps.kept.insert(ended.0, (seq, Arc::clone(&state)));
        }
        state.set_incarnation(next);
        state.reset_count();
        if next == 0 {
            maps.by_name.remove(&state.name);
        } else {
            maps.by_incarnation.insert(next, state);
        }
    }
}
