//! Several keys at once, as of one moment that nobody has to hold: the waits for memory overlap.
//! Knows index and segments; what the log does not answer for certain, the caller asks for by
//! itself.
//!
//! Each key goes through three steps, some keys behind each other: while one record is checked, the
//! records of the keys behind it are on their way from memory, and so are the homes in the index of
//! the keys behind those. What waits for memory at a time is what the processor can wait for.

use crate::error::Result;
use crate::format::record::RecordKind;
use crate::hash::KeyHash;
use crate::ids::{Incarnation, Location, Seq};
use crate::tiers::Tiers;
use crate::tiers::read::{KeyRef, is_record_of};
use crate::tiers::tally::Answer;
use crate::value::Value;
use crate::value::pins::Site;
use crate::warm::index::point::searches::Searches;
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;

/// Keys from one step to the next.
const GROUP_LEN: usize = 8;

/// One key on its way.
#[derive(Debug, Clone, Copy)]
struct Step {
    hash: KeyHash,
    /// Where the index says that it may be.
    place: Option<Location>,
}

/// Some keys of a call, side by side.
#[derive(Debug, Clone, Copy)]
struct Group<'k, K> {
    keys: &'k [K],
    steps: [Step; GROUP_LEN],
}

/// What the log says of one key.
enum Told {
    /// No record.
    Nothing,
    /// It must be asked again, at a moment that is held.
    Unsure,
    /// The key is absent.
    Absent,
    Value(Value),
}

/// One call, and what it learnt.
struct Several<'t> {
    tiers: &'t Tiers,
    table: &'t SegmentTable,
    searches: &'t Searches<'t>,
    incarnation: Incarnation,
    moment: Seq,
    site: Site,
    /// The hot tier has something to say.
    ask_hot: bool,
    hot_hits: u64,
    /// Some key had no record.
    missed: bool,
    /// Some key must be asked again.
    unsure: bool,
}

impl Tiers {
    /// What these keys hold at `moment`, which was visible when this began; values count for
    /// `site`. With it: whether those without a value have none for certain; else they must be
    /// asked again. The index names the newest records; one that is not newer than the moment held
    /// at the moment.
    pub(crate) fn read_several<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        (incarnation, moment): (Incarnation, Seq),
        site: Site,
    ) -> (Vec<Option<Value>>, bool) {
        let moves = self.moves();
        let (table, searches) = (self.segments.load(), self.index.searches());
        let mut several = Several {
            tiers: self,
            table: &table,
            searches: &searches,
            incarnation,
            moment,
            site,
            ask_hot: !self.hot.is_empty_fast(),
            hot_hits: 0,
            missed: false,
            unsure: false,
        };
        let mut values = Vec::with_capacity(keys.len());
        several.run(keys, &mut values);
        // As for one key: a miss counts if nothing moved, and if there is no archive to ask.
        let misses_count = || {
            let empty = self.cold.load().entries().is_empty();
            searches.misses_count() && empty && moves == self.moves() && moment == self.visible()
        };
        let Several { hot_hits, missed, unsure, .. } = several;
        let sure = !unsure && (!missed || misses_count());
        let found = values.iter().flatten().count() as u64;
        self.counters.reads.add(Answer::Hot, hot_hits);
        self.counters.reads.add(Answer::Warm, found - hot_hits);
        if sure {
            self.counters.reads.add(Answer::Miss, values.len() as u64 - found);
        }
        (values, sure)
    }
}

impl Several<'_> {
    fn run<K: AsRef<[u8]>>(&mut self, keys: &[K], values: &mut Vec<Option<Value>>) {
        let mut groups = keys.chunks(GROUP_LEN);
        let mut hashed = groups.next().map(|keys| self.hash(keys));
        let mut placed: Option<Group<K>> = None;
        while hashed.is_some() || placed.is_some() {
            let next = groups.next().map(|keys| self.hash(keys));
            let found = hashed.map(|group| self.place(group));
            if let Some(Group { keys, steps }) = placed {
                values.extend(
                    keys.iter().zip(steps).map(|(key, step)| self.read(key.as_ref(), step)),
                );
            }
            (hashed, placed) = (next, found);
        }
    }

    /// Hashes a group's keys and asks for their homes in the index.
    fn hash<'k, K: AsRef<[u8]>>(&self, keys: &'k [K]) -> Group<'k, K> {
        let mut steps = [Step { hash: KeyHash(0), place: None }; GROUP_LEN];
        for (step, key) in steps.iter_mut().zip(keys) {
            step.hash = self.tiers.seed.hash(self.incarnation, key.as_ref());
            self.searches.prefetch(step.hash.tag());
        }
        Group { keys, steps }
    }

    /// Searches the index for them and asks for their records.
    fn place<'k, K>(&self, mut group: Group<'k, K>) -> Group<'k, K> {
        for (step, _) in group.steps.iter_mut().zip(group.keys) {
            step.place = self.searches.first(step.hash.tag()).map(|entry| entry.location);
        }
        // An address whose page the processor must look up holds up what follows it: short loops
        // let many of them wait together.
        let places = || group.steps.iter().filter_map(|step| step.place);
        let segments = || places().filter_map(|place| Some((self.table.of(place)?, place.offset)));
        segments().for_each(|(segment, offset)| segment.prefetch_start(offset.into()));
        segments().for_each(|(segment, offset)| segment.prefetch(offset.into()));
        group
    }

    /// Reads the record.
    #[inline]
    fn read(&mut self, key: &[u8], step: Step) -> Option<Value> {
        let key = KeyRef { incarnation: self.incarnation, hash: step.hash, key };
        let shown = if self.ask_hot { self.hot(&key).map(Told::Value) } else { None };
        let shown = shown.or_else(|| self.first_place(&key, step.place?));
        match shown.unwrap_or_else(|| self.all_places(&key)) {
            Told::Value(value) => return Some(value),
            Told::Absent => {}
            Told::Nothing => self.missed = true,
            Told::Unsure => self.unsure = true,
        }
        None
    }

    #[cold]
    fn hot(&mut self, key: &KeyRef<'_>) -> Option<Value> {
        let tiers = self.tiers;
        let value = tiers.hot.get(
            &key.hot(),
            || tiers.clock.now_ms(),
            |record| (record.seq <= self.moment).then(|| Value::from(record.value)),
        );
        self.hot_hits += u64::from(matches!(value, Some(Some(_))));
        value.flatten()
    }

    /// What the record at a place says of a key; `None` where more must be asked.
    #[inline]
    fn first_place(&self, key: &KeyRef<'_>, place: Location) -> Option<Told> {
        let segment = self.table.of(place)?;
        let shown = segment.shown(segment.readable(), place.offset)?;
        let (own_key, value) = shown.pair();
        if shown.incarnation != key.incarnation || own_key != key.key {
            return None;
        }
        if shown.seq > self.moment {
            return Some(Told::Unsure);
        }
        if !shown.is_put || !self.tiers.is_alive(shown.deadline_ms) {
            return Some(Told::Absent);
        }
        if !Segment::is_sound(&shown) {
            return None;
        }
        let lens = (own_key.len(), value.len());
        Some(Told::Value(self.tiers.value_for(segment, place.offset.into(), lens, self.site)))
    }

    /// What all places say where the index has entries of this tag.
    #[cold]
    fn all_places(&self, key: &KeyRef<'_>) -> Told {
        let mut all = Told::Nothing;
        self.searches.each(key.hash.tag(), |entry| match self.tell_one(key, entry.location) {
            Ok(Told::Nothing) => {}
            Ok(one) => all = one,
            Err(_) => all = Told::Unsure,
        });
        all
    }

    /// What the record at a place says of a key.
    fn tell_one(&self, key: &KeyRef<'_>, place: Location) -> Result<Told> {
        let Some(segment) = self.table.of(place) else { return Ok(Told::Unsure) };
        let offset = u64::from(place.offset);
        let record = segment.record(offset)?;
        if !is_record_of(segment, place, &record, key)? {
            return Ok(Told::Nothing);
        }
        let header = &record.header;
        if header.seq > self.moment {
            return Ok(Told::Unsure);
        }
        if header.kind == RecordKind::Tombstone || !self.tiers.is_alive(header.deadline_ms) {
            return Ok(Told::Absent);
        }
        segment.check_body(offset, &record)?;
        let lens = (record.key.len(), record.value.len());
        Ok(Told::Value(self.tiers.value_for(segment, offset, lens, self.site)))
    }
}

#[cfg(test)]
mod tests {
    use crate::options::Options;

    const KEYS: u32 = 600;

    #[test]
    fn many_keys_are_told_as_each_of_them_alone() {
        let db = Options::new().memory_budget(16 << 20).temporary().unwrap();
        let keyspace = db.keyspace("notes").unwrap();
        let key = |id: u32| format!("key {id}");
        for id in 0..KEYS {
            // Some are longer than what is checked at every read.
            let len = if id % 7 == 0 { 5000 } else { id as usize % 90 };
            keyspace.put(key(id), vec![id.to_le_bytes()[0]; len]).unwrap();
        }
        (0..KEYS).step_by(5).for_each(|id| assert!(keyspace.delete(key(id)).unwrap()));
        for len in 0..70 {
            let ids = (0..len).map(|at| (at * 37 + len * 11) % (KEYS + 50));
            let keys: Vec<String> = ids.map(key).collect();
            let alone: Vec<_> = keys.iter().map(|key| keyspace.get(key).unwrap()).collect();
            assert_eq!(keyspace.multi_get(&keys).unwrap(), alone, "{len} keys");
        }
        assert_eq!(keyspace.multi_get(&["none", "key 1", "key 1"]).unwrap().len(), 3);
    }
}
