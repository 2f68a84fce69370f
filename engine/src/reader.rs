//! Reading one keyspace, now or at a moment: what keyspaces, snapshots and iterators share.
//! Knows the hot tier comes first and who is admitted to it; the rest is the tiers'.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Result;
use crate::handle::StoreHandle;
use crate::hot::HotRecord;
use crate::ids::{Incarnation, Seq};
use crate::key::Key;
use crate::limits;
use crate::tiers::Tiers;
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::moments::{Holder, HolderKind, Moment};
use crate::tiers::read::{KeyRef, Seen};
use crate::tiers::span::{Direction, KeyRange};
use crate::tiers::tally::Answer;
use crate::value::Value;
use crate::value::pins::Site;

/// Keys of `multi_get` whose records are fetched ahead together.
const KEYS_AT_ONCE: usize = 64;

/// One keyspace of one store, for reading.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub inner: Arc<StoreHandle>,
    pub state: Arc<KeyspaceState>,
}

/// A moment that is held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub inner: Arc<StoreHandle>,
    pub moment: Arc<Moment>,
}

impl Held {
    /// Holds the moment that is visible now.
    #[track_caller]
    pub(crate) fn now(
        inner: &Arc<StoreHandle>,
        kind: HolderKind,
        name: Option<String>,
        age_max: Option<Duration>,
    ) -> Arc<Self> {
        let tiers = &inner.tiers;
        let age = age_max.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let created_ms = tiers.clock.monotonic_ms();
        let site = Location::caller();
        let moment = tiers.hold(Holder { kind, name, created_ms, age_ms_max: age, site });
        Arc::new(Self { inner: Arc::clone(inner), moment })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.tiers.moments.release(&self.moment);
    }
}

/// One keyspace at one moment; a volatile one has no moments and is seen as it is now.
#[derive(Debug, Clone)]
pub(crate) struct View {
    reader: Reader,
    held: Option<Arc<Held>>,
    pub incarnation: Incarnation,
}

impl View {
    pub(crate) fn tiers(&self) -> &Tiers {
        self.reader.tiers()
    }

    pub(crate) fn state(&self) -> &KeyspaceState {
        &self.reader.state
    }

    pub(crate) fn moment(&self) -> Option<Seq> {
        self.held.as_ref().map(|held| held.moment.seq)
    }

    /// Fails once the store is closed or the moment was ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.tiers().check_open()?;
        self.held.as_ref().map_or(Ok(()), |held| held.moment.check())
    }

    /// The place in the program that made this.
    pub(crate) fn site(&self) -> Site {
        self.held.as_ref().map_or_else(Location::caller, |held| held.moment.site)
    }

    /// The value of a key at the moment.
    #[track_caller]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.get_versioned(key, Location::caller())?.map(|(value, _)| value))
    }

    /// The value of a key at the moment, and its `seq`.
    pub(crate) fn get_versioned(&self, key: &[u8], site: Site) -> Result<Option<(Value, Seq)>> {
        limits::check_key(key)?;
        self.check()?;
        let (tiers, incarnation) = (self.tiers(), self.incarnation);
        let hash = tiers.seed.hash(incarnation, key);
        let at = KeyRef { incarnation, hash, key };
        let copy = |record: HotRecord<'_>| (Value::from(record.value), record.seq);
        let Some(moment) = self.moment() else {
            return Ok(self.reader.hot_get(&at, copy));
        };
        if !tiers.hot.is_empty_fast()
            && let Some(Some(found)) =
                self.reader.hot_get(&at, |record| (record.seq <= moment).then(|| copy(record)))
        {
            tiers.counters.reads.add(Answer::Hot, 1);
            return Ok(Some(found));
        }
        let found =
            tiers.read_at(&at, Some(moment), |seen| (seen.value_for(tiers, site), seen.seq()))?;
        // What was read may have been let go of meanwhile.
        self.check()?;
        Ok(found)
    }

    /// Asks for those of several keys that have no value, as they are at the moment.
    fn fill<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        values: &mut [Option<Value>],
        site: Site,
    ) -> Result<()> {
        let tag = |key: &K| self.tiers().seed.hash(self.incarnation, key.as_ref()).tag();
        let missing = keys.iter().zip(values.iter()).filter(|(_, value)| value.is_none());
        let tags: Vec<u32> = missing.map(|(key, _)| tag(key)).collect();
        self.tiers().prefetch_records(&tags);
        for (key, value) in keys.iter().zip(values).filter(|(_, value)| value.is_none()) {
            *value = self.get_versioned(key.as_ref(), site)?.map(|(value, _)| value);
        }
        Ok(())
    }

    /// The outermost keys of a range that may be there, and whether there may be more.
    pub(crate) fn keys_piece(
        &self,
        range: &KeyRange,
        most: usize,
        direction: Direction,
    ) -> Result<(Vec<Key>, bool)> {
        if self.held.is_some() {
            return self.tiers().keys_piece(self.incarnation, range, most, direction);
        }
        let hot = &self.tiers().hot;
        if direction == Direction::Forward {
            return Ok(hot.keys_piece(self.incarnation, &range.from, &range.to, most));
        }
        let (mut from, mut last) = (range.from.clone(), Vec::new());
        loop {
            let (keys, more) = hot.keys_piece(self.incarnation, &from, &range.to, most);
            if let Some(key) = keys.last() {
                from = std::ops::Bound::Excluded(key.clone());
                last = keys;
            }
            if !more {
                last.reverse();
                return Ok((last, true));
            }
        }
    }
}

impl Reader {
    fn tiers(&self) -> &Tiers {
        &self.inner.tiers
    }

    /// This keyspace as it is now; what is read through it stays as it is.
    #[track_caller]
    pub(crate) fn view(&self) -> Result<View> {
        self.tiers().check_open()?;
        if self.state.volatile {
            let incarnation = self.state.incarnation()?;
            return Ok(View { reader: self.clone(), held: None, incarnation });
        }
        let held = Held::now(&self.inner, HolderKind::Iterator, None, None);
        self.view_at(&held)
    }

    /// This keyspace at a moment that is held.
    pub(crate) fn view_at(&self, held: &Arc<Held>) -> Result<View> {
        let moment = held.moment.seq;
        if self.state.volatile {
            let incarnation = self.state.incarnation()?;
            return Ok(View { reader: self.clone(), held: None, incarnation });
        }
        held.moment.check()?;
        let incarnation = self.state.incarnation_at(moment)?;
        Ok(View { reader: self.clone(), held: Some(Arc::clone(held)), incarnation })
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> u64 {
        let ttl = ttl.or_else(|| self.state.default_ttl());
        ttl.map_or(0, |ttl| self.tiers().clock.deadline_ms(ttl))
    }

    /// What the hot tier holds of a key.
    pub(crate) fn hot_get<R>(
        &self,
        at: &KeyRef<'_>,
        read: impl FnOnce(HotRecord<'_>) -> R,
    ) -> Option<R> {
        let tiers = self.tiers();
        tiers.hot.get(&at.hot(), || tiers.clock.now_ms(), read)
    }

    pub(crate) fn key_ref<'a>(&self, key: &'a [u8]) -> Result<KeyRef<'a>> {
        let incarnation = self.state.incarnation()?;
        let hash = self.tiers().seed.hash(incarnation, key);
        Ok(KeyRef { incarnation, hash, key })
    }

    /// The one read path of all handles: the hot copy, then the log and the archives.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        hot: impl FnOnce(HotRecord<'_>) -> R,
        other: impl FnOnce(&Seen<'_>) -> R,
    ) -> Result<Option<R>> {
        limits::check_key(key)?;
        let tiers = self.tiers();
        tiers.check_open()?;
        let at = self.key_ref(key)?;
        if self.state.volatile {
            return Ok(self.hot_get(&at, hot));
        }
        if !tiers.hot.is_empty_fast()
            && let Some(found) = self.hot_get(&at, hot)
        {
            tiers.counters.reads.add(Answer::Hot, 1);
            return Ok(Some(found));
        }
        let moves = tiers.moves();
        tiers.read_at(&at, None, |seen| {
            if matches!(seen, Seen::Cold(_)) || tiers.pages.short.load(Ordering::Relaxed) {
                self.admit(&at, &seen, moves);
            }
            other(&seen)
        })
    }

    /// A record that is touched a second time gets a copy in the hot tier: a cold one always, a
    /// warm one while the log is longer than the memory for its pages, for else it is there anyway.
    fn admit(&self, at: &KeyRef<'_>, seen: &Seen<'_>, moves: u64) {
        let tiers = self.tiers();
        if !tiers.hot.note_touch(at.hash) {
            return;
        }
        let seq = seen.seq();
        let record = HotRecord { value: seen.bytes(), seq, deadline_ms: seen.deadline_ms() };
        tiers.hot.admit(&at.hot(), &record, || tiers.is_newest(at, seq, moves));
    }

    /// The values of several keys as of one moment. Nothing is held where the log alone answers:
    /// else a moment is, and who did not answer is asked again at it.
    #[track_caller]
    pub(crate) fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let tiers = self.tiers();
        tiers.check_open()?;
        let incarnation = self.state.incarnation()?;
        let (moment, site) = (tiers.visible(), Location::caller());
        let mut values = Vec::new();
        if !self.state.volatile {
            let told = tiers.read_several(keys, (incarnation, moment), site);
            values = told.0;
            if told.1 && self.state.incarnation()? == incarnation {
                return Ok(values);
            }
        }
        let view = self.view()?;
        if view.moment() != Some(moment) || view.incarnation != incarnation {
            values.clear();
        }
        values.resize(keys.len(), None);
        for (keys, values) in keys.chunks(KEYS_AT_ONCE).zip(values.chunks_mut(KEYS_AT_ONCE)) {
            view.fill(keys, values, site)?;
        }
        Ok(values)
    }

    #[track_caller]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let (tiers, site) = (self.tiers(), Location::caller());
        self.read(key, |record| Value::from(record.value), |seen| seen.value_for(tiers, site))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use crate::keyspace::Keyspace;
    use crate::options::Options;

    use super::*;

    /// A store that takes the log for longer than memory.
    fn short_of_pages() -> (crate::db::Db, Keyspace) {
        let db = Options::new().memory_budget(16 << 20).temporary().unwrap();
        let keyspace = db.keyspace("notes").unwrap();
        let tiers = keyspace.reader().tiers();
        tiers.pages.asked_ms.store(u64::MAX / 2, Ordering::Relaxed);
        tiers.pages.short.store(true, Ordering::Relaxed);
        (db, keyspace)
    }

    #[test]
    fn a_reader_that_read_an_old_version_never_admits_it_after_a_writer_replaced_it() {
        let (_db, keyspace) = short_of_pages();
        let reader = keyspace.reader();
        keyspace.put("key", "old").unwrap();
        let at = reader.key_ref(b"key").unwrap();
        let moves = reader.tiers().moves();
        let read = reader.tiers().read_at(&at, None, |old| {
            keyspace.put("key", "new").unwrap();
            for _ in 0..3 {
                reader.admit(&at, &old, moves);
            }
            assert_eq!(reader.tiers().hot.record_count(), 0);
            keyspace.delete("key").unwrap();
            reader.admit(&at, &old, moves);
        });
        assert_eq!(read.unwrap(), Some(()));
        assert_eq!(reader.tiers().hot.record_count(), 0);
        assert_eq!(keyspace.get("key").unwrap(), None);
    }

    #[test]
    fn a_warm_record_is_copied_at_its_second_touch_while_memory_is_short_of_the_log() {
        let (db, keyspace) = short_of_pages();
        keyspace.put("key", "value").unwrap();
        let hits = |times: usize| {
            for _ in 0..times {
                assert_eq!(keyspace.get("key").unwrap().as_deref(), Some(&b"value"[..]));
            }
            db.stats().hot_hits
        };
        keyspace.reader().tiers().pages.short.store(false, Ordering::Relaxed);
        assert_eq!(hits(5), 0);
        keyspace.reader().tiers().pages.short.store(true, Ordering::Relaxed);
        assert_eq!((hits(2), hits(3)), (0, 3));
        keyspace.put("key", "other").unwrap();
        assert_eq!(keyspace.get("key").unwrap().as_deref(), Some(&b"other"[..]));
        assert_eq!(db.stats().hot_hits, 3);
    }

    #[test]
    fn several_keys_are_asked_of_the_hot_tier_and_never_answered_by_an_older_copy() {
        let (db, keyspace) = short_of_pages();
        let told = || keyspace.multi_get(&["none", "key"]).unwrap().pop().flatten();
        keyspace.put("key", "value").unwrap();
        (0..3).for_each(|_| assert!(keyspace.get("key").unwrap().is_some()));
        let hits = db.stats().hot_hits;
        assert_eq!(told().as_deref(), Some(&b"value"[..]));
        assert_eq!(db.stats().hot_hits, hits + 1);
        keyspace.put("key", "other").unwrap();
        assert_eq!((told().as_deref(), db.stats().hot_hits), (Some(&b"other"[..]), hits + 1));
    }

    #[test]
    fn readers_that_admit_beside_a_writer_never_go_back_in_time() {
        let (_db, keyspace) = short_of_pages();
        let done = AtomicBool::new(false);
        keyspace.put("key", 0_u32.to_le_bytes()).unwrap();
        let read = || {
            let value = keyspace.get("key").unwrap().unwrap();
            u32::from_le_bytes(value[..].try_into().unwrap())
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let next = read();
                        assert!(next >= last, "{next} after {last}");
                        last = next;
                    }
                });
            }
            for number in 1..20_000_u32 {
                keyspace.put("key", number.to_le_bytes()).unwrap();
                assert_eq!(read(), number);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(read(), 19_999);
    }
}
