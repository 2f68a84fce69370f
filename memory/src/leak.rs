//! Leaks of memory: what grows, how fast, and who holds it, by name.
//! Watches objects of the program and what the engine's ledger says; frees nothing.

mod size;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use terrace::Db;

use crate::error::Result;
pub use crate::leak::size::MemSize;
use crate::store::{Clock, Millis, Ns, Scan, Store, StoreExt};

/// Samples that are kept; the oldest goes first.
const SAMPLES_MAX: usize = 256;
/// Keys that a leak of a namespace names.
const TOP_KEYS: usize = 5;

/// What stands under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Objects that live, or rows.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest of them has been tracked.
    pub oldest: Option<Duration>,
}

/// All names at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Millis,
    /// What stands under each name.
    pub usage: BTreeMap<String, Usage>,
    /// Namespaces that could not be read, and why. They are not in `usage`.
    pub unread: Vec<String>,
}

impl Sample {
    /// Bytes of all names.
    #[doc(alias = "get_memory_usage")]
    pub fn total_bytes(&self) -> u64 {
        self.usage.values().map(|usage| usage.bytes).sum()
    }

    fn bytes(&self, name: &str) -> u64 {
        self.usage.get(name).map_or(0, |usage| usage.bytes)
    }
}

/// What counts as a leak: all of it must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeakPolicy {
    /// Growth since the baseline, in bytes.
    #[doc(alias = "threshold_mb")]
    pub growth_bytes_min: u64,
    /// Bytes a second, over the samples since the baseline.
    pub slope_min: f64,
    /// Samples since the baseline; fewer prove nothing.
    pub samples_min: usize,
}

impl Default for LeakPolicy {
    /// 100 MiB of growth, rising, seen three times.
    fn default() -> Self {
        Self { growth_bytes_min: 100 << 20, slope_min: f64::MIN_POSITIVE, samples_min: 3 }
    }
}

/// One name that grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    /// Which name.
    pub name: String,
    /// Bytes more than at the baseline.
    pub growth_bytes: u64,
    /// Bytes a second: the line of least squares through the samples since the baseline.
    pub slope: f64,
    /// What stands under it now.
    pub usage: Usage,
    /// The largest rows of a namespace, with their bytes.
    pub top_keys: Vec<(String, u64)>,
}

struct Tracked {
    name: String,
    since: Millis,
    value: Weak<dyn MemSize + Send + Sync>,
}

#[derive(Default)]
struct State {
    tracked: Vec<Tracked>,
    spaces: Vec<(String, Arc<dyn Store>, Ns)>,
    samples: VecDeque<Sample>,
    baseline: Option<Sample>,
}

/// Watches what is in memory, and what grows. Clones share it.
///
/// Objects are held weakly: watching keeps nothing alive.
#[derive(Clone, Default)]
pub struct MemoryLeakDetector {
    clock: Clock,
    engine: Option<Db>,
    /// Protects: what is watched. Not held while sizes are taken.
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemoryLeakDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLeakDetector({} objects)", self.state.lock().tracked.len())
    }
}

impl MemoryLeakDetector {
    /// One that watches nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// On this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Watches an engine's memory and files as well: the lines of its ledger are names that begin
    /// with `engine`.
    #[must_use]
    pub fn engine(mut self, db: &Db) -> Self {
        self.engine = Some(db.clone());
        self
    }

    /// Watches an object under a name; several may have one name. Equal objects stay two.
    #[doc(alias = "track_object")]
    pub fn track<T: MemSize + Send + Sync + 'static>(&self, name: &str, value: &Arc<T>) {
        let shared: Arc<dyn MemSize + Send + Sync> = Arc::<T>::clone(value);
        let (name, since) = (name.to_owned(), self.clock.now());
        let tracked = Tracked { name, since, value: Arc::downgrade(&shared) };
        self.state.lock().tracked.push(tracked);
    }

    /// Watches the rows of a namespace under a name. Each sample reads all of them.
    pub fn track_namespace(&self, name: &str, store: &Arc<dyn Store>, ns: &Ns) {
        self.state.lock().spaces.push((name.to_owned(), Arc::clone(store), ns.clone()));
    }

    /// Takes the sizes of everything that is watched, and remembers them.
    pub fn sample(&self) -> Sample {
        let (usage, unread) = self.measure();
        let sample = Sample { at: self.clock.now(), usage, unread };
        let mut state = self.state.lock();
        if state.samples.len() == SAMPLES_MAX {
            state.samples.pop_front();
        }
        state.samples.push_back(sample.clone());
        sample
    }

    /// From here on growth counts: takes a sample and forgets those before it.
    #[doc(alias = "set_baseline")]
    pub fn baseline(&self) {
        self.state.lock().samples.clear();
        let sample = self.sample();
        self.state.lock().baseline = Some(sample);
    }

    /// The names that grew beyond the policy since the baseline, the fastest first. Without a
    /// baseline the first sample is it. Takes a sample.
    #[doc(alias = "detect_leaks")]
    pub fn detect(&self, policy: LeakPolicy) -> Vec<Leak> {
        let now = self.sample();
        let (baseline, samples) = {
            let state = self.state.lock();
            let first = state.baseline.clone().or_else(|| state.samples.front().cloned());
            (first.unwrap_or_else(|| now.clone()), state.samples.clone())
        };
        let mut leaks = Vec::new();
        if samples.len() < policy.samples_min {
            return leaks;
        }
        for (name, usage) in &now.usage {
            let growth_bytes = usage.bytes.saturating_sub(baseline.bytes(name));
            let slope =
                slope(samples.iter().map(|one| (one.at.since(baseline.at), one.bytes(name))));
            if growth_bytes >= policy.growth_bytes_min.max(1) && slope >= policy.slope_min {
                // Names alone: a namespace that cannot be read has none.
                let top_keys = self.top_keys(name).unwrap_or_default();
                let (name, usage) = (name.clone(), *usage);
                leaks.push(Leak { name, growth_bytes, slope, usage, top_keys });
            }
        }
        leaks.sort_by(|a, b| b.slope.total_cmp(&a.slope));
        leaks
    }

    /// What stands under each name now. What could not be read is not in it; a sample names it.
    #[doc(alias = "get_object_breakdown")]
    pub fn breakdown(&self) -> BTreeMap<String, Usage> {
        self.measure().0
    }

    fn measure(&self) -> (BTreeMap<String, Usage>, Vec<String>) {
        let (objects, spaces) = {
            let mut state = self.state.lock();
            state.tracked.retain(|tracked| tracked.value.strong_count() > 0);
            let alive = |one: &Tracked| Some((one.name.clone(), one.since, one.value.upgrade()?));
            let objects: Vec<_> = state.tracked.iter().filter_map(alive).collect();
            (objects, state.spaces.clone())
        };
        let now = self.clock.now();
        let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
        for (name, since, value) in objects {
            let one = usage.entry(name).or_default();
            one.objects += 1;
            one.bytes += value.mem_size() as u64;
            one.oldest = one.oldest.max(Some(now.since(since)));
        }
        let mut unread = Vec::new();
        for (name, store, ns) in spaces {
            let (mut objects, mut bytes) = (0, 0);
            let read = store.walk(&ns, Scan { limit: usize::MAX, ..Scan::all() }, |key, entry| {
                objects += 1;
                bytes += (key.len() + entry.value.len()) as u64;
                Ok(true)
            });
            if let Err(error) = read {
                unread.push(format!("{name}: {error}"));
                continue;
            }
            let one = usage.entry(name).or_default();
            one.objects += objects;
            one.bytes += bytes;
        }
        if let Some(db) = &self.engine {
            usage.extend(engine_usage(db));
        }
        (usage, unread)
    }

    /// The largest rows of the namespaces that are watched under this name.
    fn top_keys(&self, name: &str) -> Result<Vec<(String, u64)>> {
        let spaces = self.state.lock().spaces.clone();
        let mut top: Vec<(String, u64)> = Vec::new();
        for (_, store, ns) in spaces.iter().filter(|(other, ..)| other == name) {
            store.walk(ns, Scan { limit: usize::MAX, ..Scan::all() }, |key, entry| {
                let bytes = (key.len() + entry.value.len()) as u64;
                if top.len() < TOP_KEYS || top.last().is_some_and(|(_, least)| bytes > *least) {
                    let index = top.partition_point(|(_, other)| *other >= bytes);
                    top.insert(index, (key.escape_ascii().to_string(), bytes));
                    top.truncate(TOP_KEYS);
                }
                Ok(true)
            })?;
        }
        Ok(top)
    }
}

/// The lines of an engine's ledger, and how long its oldest snapshot or iterator lives.
fn engine_usage(db: &Db) -> Vec<(String, Usage)> {
    let (ledger, stats) = (db.ledger(), db.stats());
    let memory = &ledger.memory;
    let oldest = stats.holders.iter().map(|one| Duration::from_millis(one.age_ms)).max();
    let plain = |bytes| Usage { objects: 1, bytes, oldest: None };
    let lines = [
        ("engine memory hot", Usage { objects: stats.hot_records, ..plain(memory.hot) }),
        ("engine memory index", plain(memory.index)),
        ("engine memory order", plain(memory.order)),
        ("engine memory versions", plain(memory.versions)),
        ("engine memory filters", plain(memory.filters)),
        ("engine files warm", Usage { objects: stats.segments, ..plain(ledger.warm.len) }),
        ("engine files cold", Usage { objects: stats.archives, ..plain(ledger.cold.len) }),
        (
            "engine pinned",
            Usage { objects: stats.holders.len() as u64, bytes: stats.pinned_bytes, oldest },
        ),
    ];
    lines.map(|(name, usage)| (name.to_owned(), usage)).into()
}

/// The slope of the line of least squares, in bytes a second; 0 for fewer than two moments.
#[expect(clippy::cast_precision_loss, reason = "bytes as a measurement")]
fn slope(points: impl Iterator<Item = (Duration, u64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), (at, bytes)| {
        (x + at.as_secs_f64() / count, y + bytes as f64 / count)
    });
    let (above, below) = points.fold((0.0, 0.0), |(above, below), (at, bytes)| {
        let dx = at.as_secs_f64() - x;
        (above + dx * (bytes as f64 - y), below + dx * dx)
    });
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Bytes, MemStore, Ttl};

    fn policy(growth_bytes_min: u64) -> LeakPolicy {
        LeakPolicy { growth_bytes_min, ..LeakPolicy::default() }
    }

    #[test]
    fn what_grows_steadily_is_named_and_what_only_stands_is_not() {
        let clock = Clock::manual(Millis(0));
        let detector = MemoryLeakDetector::new().clock(clock.clone());
        let (growing, still) =
            (Arc::new(Mutex::new(Vec::<u64>::new())), Arc::new(vec![0_u8; 9000]));
        detector.track("growing", &growing);
        detector.track("still", &still);
        detector.track("still", &Arc::new(5_u8));
        detector.baseline();
        for _ in 0..10 {
            clock.advance(Duration::from_secs(1));
            let mut vec = growing.lock();
            let len = vec.len() + 1000;
            vec.reserve_exact(1000);
            vec.resize(len, 7);
            drop(vec);
            detector.sample();
        }
        let leaks = detector.detect(policy(50_000));
        assert_eq!(leaks.len(), 1, "{leaks:?}");
        let leak = &leaks[0];
        assert_eq!((leak.name.as_str(), leak.usage.objects), ("growing", 1));
        assert!((leak.slope - 8000.0).abs() < 800.0, "{}", leak.slope);
        assert_eq!(leak.usage.oldest, Some(Duration::from_secs(10)));
        assert_eq!(detector.detect(policy(1 << 20)), []);
        drop(growing);
        let names: Vec<_> = detector.breakdown().into_keys().collect();
        assert_eq!(names, ["still"], "what was dropped is gone, and the temporary one too");
    }

    #[test]
    fn a_namespace_that_grows_is_named_with_its_largest_keys() {
        let clock = Clock::manual(Millis(0));
        let detector = MemoryLeakDetector::new().clock(clock.clone());
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let ns = Ns::new("sessions").unwrap();
        detector.track_namespace("sessions", &store, &ns);
        assert_eq!(detector.detect(policy(1)), [], "one sample proves nothing");
        for i in 1..=8_usize {
            clock.advance(Duration::from_secs(1));
            store.put(&ns, format!("s{i}"), Bytes::from(vec![0; 1000 * i]), Ttl::Never).unwrap();
            detector.sample();
        }
        let leaks = detector.detect(policy(10_000));
        let top: Vec<_> = leaks[0].top_keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(top, ["s8", "s7", "s6", "s5", "s4"]);
        assert_eq!(leaks[0].usage.objects, 8);
    }

    #[test]
    fn an_engine_shows_its_ledger_and_what_a_snapshot_pins() {
        let db = terrace::Options::new().temporary().unwrap();
        let detector = MemoryLeakDetector::new().engine(&db);
        let notes = db.keyspace("notes").unwrap();
        notes.put("k", vec![1; 50_000]).unwrap();
        let snapshot = db.snapshot();
        notes.put("k", vec![2; 50_000]).unwrap();
        let usage = detector.breakdown();
        let pinned = usage["engine pinned"];
        assert!(pinned.objects >= 1 && pinned.bytes >= 50_000, "{pinned:?}");
        assert!(usage["engine files warm"].bytes >= 100_000);
        drop(snapshot);
        assert_eq!(detector.breakdown()["engine pinned"].objects, 0);
        assert!(detector.sample().total_bytes() > 0);
        let store: Arc<dyn Store> = Arc::new(crate::store::EngineStore::new(&db).unwrap());
        detector.track_namespace("notes", &store, &Ns::new("notes").unwrap());
        assert!(detector.breakdown().contains_key("notes"));
        db.close().unwrap();
        assert_eq!(detector.sample().unread.len(), 1, "what cannot be read is named");
    }
}
