//! A cache in memory: least recently used goes first, exact bounds, TTL, one loader per key.
//! Knows keys and values of the program; keeps nothing on disk and has no thread.

mod table;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::cache::table::{Item, Table};
use crate::store::Clock;

/// Says how much an entry weighs, in bytes.
pub type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// How much a cache holds.
pub enum Capacity<K, V> {
    /// So many entries.
    Entries(usize),
    /// Entries that weigh so many bytes together.
    Bytes(u64, Weigher<K, V>),
}

/// What a cache did so far, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Entries put in.
    pub inserts: u64,
    /// Entries that went for lack of room.
    pub evictions: u64,
    /// Entries that went because their time was over.
    pub expirations: u64,
    /// Loaders that ran.
    pub loads: u64,
    /// Loaders that failed.
    pub load_failures: u64,
    /// Entries held now, expired ones that were not met yet included.
    pub entries: u64,
    /// Their weight; their number when entries are counted.
    pub weight: u64,
}

/// A cache that evicts what was not used for the longest.
///
/// Never holds more than its capacity, whatever happens. Replacing a key evicts no other. A value
/// that is heavier than the whole cache is not kept. Every call is a constant number of steps; with
/// TTLs, a logarithmic one for entries that have one.
///
/// ```
/// use terrace_memory::cache::{Capacity, LruMemoryCache};
///
/// let cache = LruMemoryCache::new(Capacity::Entries(2));
/// cache.insert("a", 1, None);
/// cache.insert("b", 2, None);
/// assert_eq!(cache.get(&"a").as_deref(), Some(&1));
/// cache.insert("c", 3, None); // "b" was not used for the longest.
/// assert_eq!(cache.get(&"b"), None);
/// ```
pub struct LruMemoryCache<K, V> {
    parts: Box<[Part<K, V>]>,
    hasher: RandomState,
    weigher: Option<Weigher<K, V>>,
    clock: Clock,
}

/// A part has its share of the capacity and its own lock.
struct Part<K, V> {
    capacity: u64,
    /// Protects: the entries and loaders of this part. Never held while a loader runs.
    state: Mutex<State<K, V>>,
    /// A loader has ended.
    loaded: Condvar,
}

struct State<K, V> {
    table: Table<K, V>,
    flights: Vec<Flight<K>>,
    flight_count: u64,
    stats: CacheStats,
}

/// A loader that runs.
struct Flight<K> {
    id: u64,
    hash: u64,
    key: K,
    /// The key was inserted or removed since: what is loaded is old already.
    stale: bool,
}

impl<K: Hash + Eq, V> LruMemoryCache<K, V> {
    /// A cache in one part: its order of eviction is exactly that of last use.
    #[doc(alias = "max_size")]
    pub fn new(capacity: Capacity<K, V>) -> Self {
        Self::with_parts(capacity, 1)
    }

    /// A cache in several parts, each with its share of the capacity and a lock of its own: for
    /// many threads. Each part evicts in its own order.
    pub fn with_parts(capacity: Capacity<K, V>, parts: usize) -> Self {
        let (total, weigher) = match capacity {
            Capacity::Entries(count) => (count as u64, None),
            Capacity::Bytes(bytes, weigher) => (bytes, Some(weigher)),
        };
        let count = parts.max(1) as u64;
        let share = |index: u64| total / count + u64::from(index < total % count);
        let part = |index| Part {
            capacity: share(index),
            state: Mutex::new(State {
                table: Table::new(),
                flights: Vec::new(),
                flight_count: 0,
                stats: CacheStats::default(),
            }),
            loaded: Condvar::new(),
        };
        let parts = (0..count).map(part).collect();
        Self { parts, hasher: RandomState::new(), weigher, clock: Clock::system() }
    }

    /// On this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    fn part(&self, key: &K) -> (&Part<K, V>, u64) {
        let hash = self.hasher.hash_one(key);
        // The table uses the low and the highest bits.
        let index = usize::try_from(hash >> 32).unwrap_or(0) % self.parts.len();
        #[expect(clippy::indexing_slicing, reason = "taken modulo the number of parts")]
        let part = &self.parts[index];
        (part, hash)
    }

    /// The value of a key, which is now the newest.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let (part, hash) = self.part(key);
        let mut state = part.state.lock();
        let found = state.live(&self.clock, hash, key);
        if found.is_some() {
            state.stats.hits += 1;
        } else {
            state.stats.misses += 1;
        }
        found
    }

    /// Puts a value in; the one before it is returned. Without a TTL it stays until it is evicted;
    /// with a TTL of zero it is not kept.
    #[doc(alias = "set")]
    pub fn insert(&self, key: K, value: V, ttl: Option<Duration>) -> Option<Arc<V>> {
        let (part, hash) = self.part(&key);
        let mut state = part.state.lock();
        state.outdate(hash, &key);
        let old = state.live(&self.clock, hash, &key);
        self.store(part, &mut state, (hash, key), Arc::new(value), ttl);
        old
    }

    fn store(
        &self,
        part: &Part<K, V>,
        state: &mut State<K, V>,
        (hash, key): (u64, K),
        value: Arc<V>,
        ttl: Option<Duration>,
    ) {
        drop(state.table.remove(hash, &key));
        let weight = self.weigher.as_ref().map_or(1, |weigh| weigh(&key, &value));
        let now = self.clock.now();
        state.stats.inserts += 1;
        if weight > part.capacity || ttl.is_some_and(|ttl| ttl.is_zero()) {
            return;
        }
        let room = part.capacity - weight;
        while state.table.weight() > room {
            if state.table.pop_expired(now).is_some() {
                state.stats.expirations += 1;
            } else if state.table.pop_oldest().is_some() {
                state.stats.evictions += 1;
            } else {
                break;
            }
        }
        let deadline = ttl.map(|ttl| now.after(ttl));
        state.table.insert(Item { key, hash, value, weight, deadline });
    }

    /// The value of a key; `load` makes it when it is not there. Of several threads that ask for
    /// one key, one loads and the others wait for it; when it fails, the next one tries.
    ///
    /// `load` runs without a lock. It must not ask this cache for the same key.
    pub fn get_or_try_insert<E>(
        &self,
        key: K,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        let (part, hash) = self.part(&key);
        let mut state = part.state.lock();
        loop {
            if let Some(found) = state.live(&self.clock, hash, &key) {
                state.stats.hits += 1;
                return Ok(found);
            }
            if !state.flights.iter().any(|flight| flight.hash == hash && flight.key == key) {
                break;
            }
            part.loaded.wait(&mut state);
        }
        state.stats.misses += 1;
        state.stats.loads += 1;
        state.flight_count += 1;
        let id = state.flight_count;
        state.flights.push(Flight { id, hash, key, stale: false });
        drop(state);
        let landing = Landing { part, id, landed: false };
        self.land(landing, load())
    }

    fn land<E>(&self, mut landing: Landing<K, V>, loaded: Result<V, E>) -> Result<Arc<V>, E> {
        let part = landing.part;
        let mut state = part.state.lock();
        let flight = landing.take(&mut state);
        let value = match loaded {
            Ok(value) => Arc::new(value),
            Err(error) => {
                state.stats.load_failures += 1;
                return Err(error);
            }
        };
        if let Some(Flight { hash, key, stale: false, .. }) = flight {
            self.store(part, &mut state, (hash, key), Arc::clone(&value), None);
        }
        Ok(value)
    }

    /// Takes a key out.
    pub fn remove(&self, key: &K) -> Option<Arc<V>> {
        let (part, hash) = self.part(key);
        let mut state = part.state.lock();
        state.outdate(hash, key);
        let found = state.live(&self.clock, hash, key);
        drop(state.table.remove(hash, key));
        found
    }

    /// Takes everything out.
    pub fn clear(&self) {
        for part in &self.parts {
            let mut state = part.state.lock();
            state.table = Table::new();
            state.flights.iter_mut().for_each(|flight| flight.stale = true);
        }
    }

    /// Entries that are held, expired ones that were not met yet included.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.state.lock().table.len()).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it did so far, and what it holds.
    pub fn stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        for part in &self.parts {
            let state = part.state.lock();
            let one = &state.stats;
            sum.hits += one.hits;
            sum.misses += one.misses;
            sum.inserts += one.inserts;
            sum.evictions += one.evictions;
            sum.expirations += one.expirations;
            sum.loads += one.loads;
            sum.load_failures += one.load_failures;
            sum.entries += state.table.len() as u64;
            sum.weight += state.table.weight();
        }
        sum
    }
}

impl<K: Eq, V> State<K, V> {
    /// The value, unless it has expired; then it goes.
    fn live(&mut self, clock: &Clock, hash: u64, key: &K) -> Option<Arc<V>> {
        let item = self.table.touch(hash, key)?;
        if item.deadline.is_none_or(|deadline| deadline > clock.now()) {
            return Some(Arc::clone(&item.value));
        }
        drop(self.table.remove(hash, key));
        self.stats.expirations += 1;
        None
    }

    /// What a loader of this key brings is old already.
    fn outdate(&mut self, hash: u64, key: &K) {
        for flight in &mut self.flights {
            flight.stale |= flight.hash == hash && flight.key == *key;
        }
    }
}

/// Ends a flight, also when its loader panics: others must not wait for ever.
struct Landing<'c, K, V> {
    part: &'c Part<K, V>,
    id: u64,
    landed: bool,
}

impl<K, V> Landing<'_, K, V> {
    /// Takes the flight out, and wakes those that wait.
    fn take(&mut self, state: &mut MutexGuard<'_, State<K, V>>) -> Option<Flight<K>> {
        self.landed = true;
        self.part.loaded.notify_all();
        let index = state.flights.iter().position(|flight| flight.id == self.id)?;
        Some(state.flights.swap_remove(index))
    }
}

impl<K, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        if !self.landed {
            let part = self.part;
            let mut state = part.state.lock();
            drop(self.take(&mut state));
        }
    }
}

impl<K, V> fmt::Debug for LruMemoryCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LruMemoryCache").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
