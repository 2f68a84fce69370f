//! One shard of the hot tier: table, bytes, policy, and the budget that holds for all of them.
//! Knows what it maps and who has to go for it; knows nothing of other shards or of who asks.

use std::io;
use std::ops::Bound;

use crate::hash::{HashSeed, KeyHash};
use crate::hot::policy::Policy;
use crate::hot::policy::epoch::{Class, Mark};
use crate::hot::slab::{SLAB_LEN_MAX, Slabs, UNIT, units};
use crate::hot::table::{At, Entry, Table};
use crate::hot::volatile::VolatileKeys;
use crate::hot::{HotRecord, is_expired};
use crate::ids::Incarnation;
use crate::key::Key;

/// Slabs that a budget is cut into, where they are not longer than the longest.
const SLABS_A_BUDGET: u64 = 16;
const SLAB_LEN_MIN: u64 = 16 << 10;
/// Evictions for one record before a whole slab is emptied for it.
const EVICTIONS_MAX: usize = 64;
/// Slots that one step of a sweep looks at.
pub(crate) const SWEPT_SLOTS: usize = 1 << 14;
/// The part of the budget that the policy's shadows may take: one in so many.
const SHADOW_SHARE: u64 = 16;

/// A key as a shard is asked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HotKey<'a> {
    pub hash: KeyHash,
    pub incarnation: Incarnation,
    pub key: &'a [u8],
}

#[derive(Debug)]
pub(crate) struct Shard {
    seed: HashSeed,
    table: Table,
    slabs: Slabs,
    policy: Policy,
    volatile: VolatileKeys,
    swept: usize,
}

impl Shard {
    /// A shard whose slabs fit this budget.
    pub(crate) fn new(seed: HashSeed, budget: u64) -> io::Result<Self> {
        let slab_len = (budget / SLABS_A_BUDGET).next_power_of_two();
        let slab_len = slab_len.clamp(SLAB_LEN_MIN, SLAB_LEN_MAX as u64);
        Ok(Self {
            seed,
            table: Table::new()?,
            slabs: Slabs::new(usize::try_from(slab_len).unwrap_or(SLAB_LEN_MAX)),
            policy: Policy::new(budget / SHADOW_SHARE),
            volatile: VolatileKeys::default(),
            swept: 0,
        })
    }

    /// Bytes that the shard takes: whole maps, and its own few structures.
    pub(crate) fn charged(&self) -> u64 {
        let own = self.table.charged() + self.policy.charged() + self.volatile.charged();
        own + self.slabs.mapped()
    }

    pub(crate) fn count(&self) -> usize {
        self.table.count()
    }

    /// The record of a key. Marks the touch.
    #[inline]
    pub(crate) fn get(&mut self, key: &HotKey<'_>) -> Option<HotRecord<'_>> {
        let tag = key.hash.tag();
        let (at, _) = self.find(key)?;
        self.policy.touch(&mut self.table, at, tag);
        Some(self.slabs.record(self.table.place(at)).record)
    }

    #[inline]
    fn find(&self, key: &HotKey<'_>) -> Option<(At, Class)> {
        let is = |place| self.slabs.is(place, key.incarnation, key.key);
        self.table.find(key.hash.tag(), is).map(|(at, mark)| (at, Mark(mark).class()))
    }

    pub(crate) fn note_touch(&mut self, hash: KeyHash) -> bool {
        self.policy.note_touch(hash.tag())
    }

    /// Takes a clean copy, in the place of an older one; whoever must leave for it leaves.
    /// Answers whether there was room.
    pub(crate) fn admit(
        &mut self,
        key: &HotKey<'_>,
        record: &HotRecord<'_>,
        budget: u64,
    ) -> io::Result<bool> {
        self.remove(key);
        let Some(place) = self.place_for(key, record, budget)? else { return Ok(false) };
        let has_deadline = record.deadline_ms != 0;
        self.policy.admit(&mut self.table, key.hash.tag(), place, has_deadline);
        self.fit(budget)?;
        Ok(true)
    }

    /// Removes a clean copy; answers whether it was there.
    pub(crate) fn remove(&mut self, key: &HotKey<'_>) -> bool {
        let found = self.find(key).filter(|(_, class)| *class != Class::Volatile);
        let Some((at, _)) = found else { return false };
        self.remove_at(at);
        true
    }

    fn remove_at(&mut self, at: At) {
        let place = self.table.place(at);
        self.policy.remove(&mut self.table, at);
        self.slabs.free(place);
    }

    /// Writes a volatile record; `false` when it does not fit beside the other volatile ones.
    pub(crate) fn put_volatile(
        &mut self,
        key: &HotKey<'_>,
        record: &HotRecord<'_>,
        budget: u64,
    ) -> io::Result<bool> {
        let has_deadline = record.deadline_ms != 0;
        let mark = Mark::new(Class::Volatile, 0, has_deadline).0;
        if let Some((at, _)) = self.find(key) {
            let place = self.table.place(at);
            if self.slabs.units_at(place) == units(key.key.len(), record.value.len()) {
                self.slabs.overwrite(place, key.incarnation, key.key, record);
                self.table.set_mark(at, mark);
                return Ok(true);
            }
        }
        let Some(place) = self.place_for(key, record, budget)? else { return Ok(false) };
        if let Some((at, _)) = self.find_volatile(key, place) {
            self.remove_at(at);
        } else {
            self.volatile.insert(key.incarnation, key.key);
        }
        self.table.insert(Entry { tag: key.hash.tag(), place, mark });
        self.fit(budget)?;
        Ok(true)
    }

    /// The volatile record of a key that lies elsewhere than at `place`.
    fn find_volatile(&self, key: &HotKey<'_>, place: u32) -> Option<(At, Class)> {
        self.find(key).filter(|(at, _)| self.table.place(*at) != place)
    }

    /// Removes a volatile record; returns its deadline if it was there.
    pub(crate) fn remove_volatile(&mut self, key: &HotKey<'_>) -> Option<u64> {
        let (at, class) = self.find(key)?;
        if class != Class::Volatile {
            return None;
        }
        let deadline_ms = self.slabs.record(self.table.place(at)).record.deadline_ms;
        self.volatile.remove(key.incarnation, key.key);
        self.remove_at(at);
        Some(deadline_ms)
    }

    /// A block with the record in it, and a free slot in the table. `None` when there is no room.
    fn place_for(
        &mut self,
        key: &HotKey<'_>,
        record: &HotRecord<'_>,
        budget: u64,
    ) -> io::Result<Option<u32>> {
        if let Some(growth) = self.table.growth() {
            if !self.make_room(growth, budget)? {
                return Ok(None);
            }
            self.table.grow()?;
        }
        let place = self.allocate(units(key.key.len(), record.value.len()), budget)?;
        if let Some(place) = place {
            self.slabs.write(place, key.incarnation, key.key, record);
        }
        Ok(place)
    }

    fn allocate(&mut self, units: usize, budget: u64) -> io::Result<Option<u32>> {
        if self.slabs.is_single(units) {
            let len = (units * UNIT) as u64 + SLAB_LEN_MIN;
            let room = self.make_room(len, budget)?;
            return if room { self.slabs.map_single(units).map(Some) } else { Ok(None) };
        }
        for _ in 0..EVICTIONS_MAX {
            if let Some(place) = self.slabs.allocate(units) {
                return Ok(Some(place));
            }
            if self.charged() + self.slabs.slab_len() as u64 <= budget {
                self.slabs.map_slab()?;
                self.expect(budget);
            } else if !self.evict() {
                break;
            }
        }
        if let Some(place) = self.slabs.allocate(units) {
            return Ok(Some(place));
        }
        // What is vacant lies in pieces: the records of one slab make way.
        if !self.empty_slab() || self.charged() + self.slabs.slab_len() as u64 > budget {
            return Ok(None);
        }
        self.slabs.map_slab()?;
        Ok(self.slabs.allocate(units))
    }

    /// Tells the policy how many records the budget has room for, if all are like those here.
    fn expect(&mut self, budget: u64) {
        let (count, used) = (self.policy.count() as u64, self.slabs.used().max(1));
        let full = count.saturating_mul(budget) / (used + count * 16);
        self.policy.expect(usize::try_from(full).unwrap_or(usize::MAX));
    }

    fn evict(&mut self) -> bool {
        let Some(entry) = self.policy.evict(&mut self.table) else { return false };
        self.slabs.free(entry.place);
        true
    }

    /// Evicts a few; `false` when nobody could go.
    fn evict_some(&mut self) -> bool {
        (0..EVICTIONS_MAX).take_while(|_| self.evict()).count() > 0
    }

    /// Evicts, and unmaps slabs, until so many bytes more are within the budget.
    fn make_room(&mut self, bytes: u64, budget: u64) -> io::Result<bool> {
        let slab_len = self.slabs.slab_len() as u64;
        while self.charged() + bytes > budget {
            let excess = self.charged() + bytes - budget;
            let vacant = |slabs: &Slabs| slabs.mapped() - slabs.used();
            while vacant(&self.slabs) < excess.min(slab_len)
                && self.charged() + bytes > budget
                && self.evict()
            {}
            if self.charged() + bytes <= budget {
                break;
            }
            // Volatile records that found no block elsewhere: more of the others must go.
            if !self.empty_slab() && !self.evict_some() {
                self.table.shrink()?;
                return Ok(self.charged() + bytes <= budget);
            }
        }
        Ok(true)
    }

    /// Keeps what is charged within the budget, as far as volatile records let it.
    pub(crate) fn fit(&mut self, budget: u64) -> io::Result<()> {
        if self.charged() > budget {
            self.table.shrink()?;
            self.make_room(0, budget)?;
        }
        Ok(())
    }

    /// Unmaps the slab with the fewest bytes of records; they move where there is a block for
    /// them, clean ones leave otherwise. `false` when a volatile one had to stay, or there is no
    /// slab.
    fn empty_slab(&mut self) -> bool {
        let Some((index, places)) = self.slabs.emptiest() else { return false };
        self.slabs.withhold(index);
        let mut left = Vec::new();
        for place in places {
            let stored = self.slabs.record(place);
            let tag = self.seed.hash(stored.incarnation, stored.key).tag();
            let found = self.table.find(tag, |other| other == place);
            let Some((at, mark)) = found else { continue };
            if let Some(to) = self.slabs.relocate(place) {
                self.table.set_place(at, to);
            } else if Mark(mark).class() == Class::Volatile {
                left.push(place);
            } else {
                self.policy.remove(&mut self.table, at);
                self.slabs.abandon(place);
            }
        }
        self.slabs.finish(index, &left)
    }

    /// Drops clean records of an incarnation in some slots from `slot` on; returns where to go on.
    pub(crate) fn purge_slots(&mut self, incarnation: Incarnation, slot: usize) -> Option<usize> {
        let end = (slot + SWEPT_SLOTS).min(self.table.slots());
        for slot in slot..end {
            let Some(entry) = self.table.entry(slot) else { continue };
            let volatile = Mark(entry.mark).class() == Class::Volatile;
            if !volatile && self.slabs.record(entry.place).incarnation == incarnation {
                self.remove_at(Table::at(slot));
            }
        }
        (end < self.table.slots()).then_some(end)
    }

    /// Drops some of the volatile records of an incarnation; answers whether there may be more.
    pub(crate) fn purge_volatile(&mut self, incarnation: Incarnation) -> bool {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let keys = self.volatile.keys(incarnation, &all.0, &all.1, SWEPT_SLOTS / 8);
        for key in &keys {
            let hash = self.seed.hash(incarnation, key);
            self.remove_volatile(&HotKey { hash, incarnation, key });
        }
        !keys.is_empty()
    }

    /// Drops up to `most` expired records among the next slots; returns how many went.
    pub(crate) fn sweep(&mut self, now_ms: u64, most: usize) -> u64 {
        let slots = self.table.slots();
        let mut gone = 0;
        for _ in 0..SWEPT_SLOTS.min(slots) {
            self.swept = if self.swept + 1 >= slots { 0 } else { self.swept + 1 };
            let Some(entry) = self.table.entry(self.swept) else { continue };
            let mark = Mark(entry.mark);
            if !mark.has_deadline() {
                continue;
            }
            let stored = self.slabs.record(entry.place);
            if is_expired(stored.record.deadline_ms, || now_ms) {
                if mark.class() == Class::Volatile {
                    self.volatile.remove(stored.incarnation, stored.key);
                }
                self.remove_at(Table::at(self.swept));
                gone += 1;
            }
            if gone >= most {
                break;
            }
        }
        gone as u64
    }

    /// The smallest keys of a volatile keyspace's range.
    pub(crate) fn volatile_keys(
        &self,
        incarnation: Incarnation,
        from: &Bound<Key>,
        to: &Bound<Key>,
        most: usize,
    ) -> Vec<Key> {
        self.volatile.keys(incarnation, from, to, most)
    }

    /// Walks the shard and asserts that each sum is what it claims.
    #[cfg(test)]
    pub(crate) fn validate(&self, budget: u64) {
        self.table.validate();
        self.policy.validate(&self.table);
        let entries = (0..self.table.slots()).filter_map(|slot| self.table.entry(slot));
        let mut volatile = 0;
        let mut places = std::collections::BTreeSet::new();
        for entry in entries {
            let stored = self.slabs.record(entry.place);
            let hash = self.seed.hash(stored.incarnation, stored.key);
            assert_eq!(hash.tag(), entry.tag, "the record of another key");
            let deadline = stored.record.deadline_ms != 0;
            assert_eq!(deadline, Mark(entry.mark).has_deadline());
            volatile += usize::from(Mark(entry.mark).class() == Class::Volatile);
            assert!(places.insert(entry.place), "two entries of one place");
        }
        assert_eq!(volatile, self.volatile.validate());
        self.slabs.validate(&places);
        assert!(volatile > 0 || self.charged() <= budget, "{} over {budget}", self.charged());
    }
}
