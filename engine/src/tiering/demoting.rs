//! Demotion by wish: what the log holds of one keyspace goes to the archive now.
//! Knows which segments hold a keyspace; the work is reclaiming's.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::ids::Incarnation;
use crate::options::DemotePolicy;
use crate::tiering::relocate::Aim;
use crate::tiers::{Maintenance, Tiers};
use crate::warm::segment::Segment;

impl Tiers {
    /// Demotes what the log holds of a keyspace now, segment by segment, and answers how many
    /// records went. What lies in the same segments and is not meant stays in the log.
    pub(crate) fn demote(&self, incarnation: Incarnation, policy: DemotePolicy) -> Result<u64> {
        self.check_writable("demote")?;
        self.seal_log()?;
        let newest = self.segments.load().iter().map(|segment| segment.id.0).max();
        let (mut from, newest) = (0, newest.unwrap_or(0));
        let mut moved = 0;
        loop {
            let mut maintenance = self.maintenance.lock();
            self.check_open()?;
            let victims = self.holders_of(incarnation, from..=newest, &mut maintenance);
            let Some(last) = victims.last() else { break };
            let last = last.id.0;
            let demoted = || self.counters.records_demoted.load(Ordering::Relaxed);
            let before = demoted();
            self.move_from(&mut maintenance, &victims, Aim::DemoteOf(incarnation, policy))?;
            moved += demoted() - before;
            if last >= newest {
                break;
            }
            from = last + 1;
        }
        self.measure_space();
        Ok(moved)
    }

    /// The first sealed segments of these numbers that hold records of a keyspace: as many as one
    /// batch may take.
    fn holders_of(
        &self,
        incarnation: Incarnation,
        ids: RangeInclusive<u32>,
        maintenance: &mut Maintenance,
    ) -> Vec<Arc<Segment>> {
        let candidates = self.candidates(&mut self.append.lock(), maintenance);
        let mut victims = Vec::new();
        let (mut live, mut records) = (0, 0);
        for candidate in candidates.into_iter().filter(|one| ids.contains(&one.segment.id.0)) {
            let Ok(trailer) = candidate.segment.trailer() else {
                maintenance.damaged.push(candidate.segment.id.0);
                continue;
            };
            if !trailer.entries().flatten().any(|entry| entry.incarnation == incarnation) {
                continue;
            }
            live += candidate.live;
            records += candidate.records;
            let is_too_much =
                live > self.options.segment_size || records > self.scratch().records_max();
            if is_too_much && !victims.is_empty() {
                break;
            }
            victims.push(candidate.segment);
        }
        victims
    }

    /// Demotes all of the log.
    #[cfg(feature = "testing")]
    pub(crate) fn demote_all(&self) -> Result<()> {
        self.check_writable("demote")?;
        self.compact_log()?;
        let mut maintenance = self.maintenance.lock();
        let candidates = self.candidates(&mut self.append.lock(), &maintenance);
        let victims: Vec<_> = candidates.into_iter().map(|candidate| candidate.segment).collect();
        if !victims.is_empty() {
            self.move_from(&mut maintenance, &victims, Aim::Demote)?;
        }
        drop(maintenance);
        self.measure_space();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::keyspace::{Keyspace, Tier};
    use crate::options::{KeyspaceOptions, Options};

    const COUNT: u32 = 3000;

    fn key(number: u32) -> String {
        format!("key {number:05}")
    }

    fn value(number: u32, of: &str) -> Vec<u8> {
        format!("{number} of {of} {}", "and some words ".repeat(12)).into_bytes()
    }

    fn fill(ks: &Keyspace) {
        for number in 0..COUNT {
            ks.put(key(number), value(number, ks.name())).unwrap();
        }
    }

    fn quiet() -> Options {
        let mut options = Options::new().segment_size(1 << 20);
        options.workers = false;
        options
    }

    /// How many keys each of warm and cold tier holds; every value is as it was put.
    fn places(ks: &Keyspace, lives: impl Fn(u32) -> bool) -> (u32, u32) {
        let (mut warm, mut cold) = (0, 0);
        for number in 0..COUNT {
            let expected = lives(number).then(|| value(number, ks.name()));
            assert_eq!(ks.get(key(number)).unwrap().as_deref(), expected.as_deref(), "{number}");
            match ks.info(key(number)).unwrap().map(|info| info.tier) {
                Some(Tier::Cold) => cold += 1,
                Some(_) => warm += 1,
                None => {}
            }
        }
        (warm, cold)
    }

    #[test]
    fn one_keyspace_goes_down_and_its_neighbour_stays() {
        let dir = tempfile::tempdir().unwrap();
        let db = quiet().open(dir.path().join("store")).unwrap();
        let (old, new) = (db.keyspace("old").unwrap(), db.keyspace("new").unwrap());
        fill(&old);
        fill(&new);
        old.delete(key(1)).unwrap();
        let held = db.snapshot();
        old.delete(key(2)).unwrap();
        assert_eq!(db.demote(&old, DemotePolicy::All).unwrap(), u64::from(COUNT) - 2);
        assert_eq!(held.get(&old, key(2)).unwrap().as_deref(), Some(&*value(2, "old")));
        drop(held);
        let lives = |number| number != 1 && number != 2;
        let check = |old: &Keyspace, new: &Keyspace| {
            assert_eq!(places(old, lives), (0, COUNT - 2));
            assert_eq!(places(new, |_| true), (COUNT, 0));
        };
        check(&old, &new);
        assert_eq!(db.demote(&old, DemotePolicy::All).unwrap(), 0, "nothing is left to move");
        assert!(db.audit().unwrap().is_exact());
        drop((old, new));
        db.close().unwrap();
        let db = quiet().open(dir.path().join("store")).unwrap();
        check(&db.keyspace("old").unwrap(), &db.keyspace("new").unwrap());
        assert!(db.audit().unwrap().is_exact());
    }

    #[test]
    fn what_was_read_stays_where_only_the_unread_is_meant() {
        let db = quiet().temporary().unwrap();
        let ks = db.keyspace("some").unwrap();
        fill(&ks);
        let read = |number: u32| number.is_multiple_of(3);
        for number in (0..COUNT).filter(|&number| read(number)) {
            ks.get(key(number)).unwrap();
        }
        let moved = db.demote(&ks, DemotePolicy::Unread).unwrap();
        let stays = (0..COUNT).filter(|&number| read(number)).count() as u64;
        assert_eq!(moved, u64::from(COUNT) - stays);
        let (warm, cold) = places(&ks, |_| true);
        assert_eq!((u64::from(warm), u64::from(cold)), (stays, moved));
        assert!(db.audit().unwrap().is_exact());
    }

    #[test]
    fn nothing_moves_of_what_has_no_log_and_another_stores_keyspace_is_refused() {
        let (db, other) = (quiet().temporary().unwrap(), quiet().temporary().unwrap());
        let volatile = db.keyspace_with("memory", KeyspaceOptions::new().volatile()).unwrap();
        volatile.put("key", "value").unwrap();
        assert_eq!(db.demote(&volatile, DemotePolicy::All).unwrap(), 0);
        let foreign = other.keyspace("some").unwrap();
        assert!(matches!(db.demote(&foreign, DemotePolicy::All), Err(Error::Invalid { .. })));
        db.clone().close().unwrap();
        assert!(matches!(db.demote(&volatile, DemotePolicy::All), Err(Error::Closed)));
    }
}
