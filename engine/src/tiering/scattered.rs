//! Gathering: the sealed log written anew in the order of its keys, so that walks read forward.
//! Knows when that is worth it; copying and reclaiming are elsewhere.
//!
//! What was only loaded lies in the order of its arrival, and a row of a walk costs a miss of its
//! own. Walks count the rows that they had to jump to. Once these outnumber the records, all of
//! them are copied once, as an index organized by use (Idreos et al., Database Cracking, 2007).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::limits::DISK_RESERVE;
use crate::tiering::Step;
use crate::tiering::gather::Gathered;
use crate::tiering::relocate::Aim;
use crate::tiering::seal::EARLY_SEAL_LEN;
use crate::tiers::{Maintenance, Tiers};
use crate::warm::segment::Segment;

/// Rows that walks jumped to before anything is gathered, however small the log is.
const ROWS_MIN: u64 = 4096;
/// One record in so many must lie loose before all are gathered: so a byte that was put is written
/// so many times more at most, however much is scanned.
const LOOSE_SHARE: u64 = 4;
/// Bytes that are remembered of each record until all are switched.
const RECORD_LEN: u64 = 24;
/// Records that are longer on average have little to gain.
const RECORD_LEN_MAX: u64 = 4096;

/// What would be gathered.
struct Scattered {
    victims: Vec<Arc<Segment>>,
    records: u64,
    /// Records in segments that were not gathered.
    loose: u64,
    live: u64,
}

impl Tiers {
    /// Gathers once walks jumped to as many rows as there are records.
    pub(crate) fn gather_step(&self, maintenance: &mut Maintenance) -> Result<Step> {
        let jumps = self.extra.jumps.load(Ordering::Relaxed);
        if jumps < ROWS_MIN {
            return Ok(Step::Idle);
        }
        let scattered = self.scattered(maintenance);
        let is_worth_it = scattered.loose * LOOSE_SHARE >= scattered.records;
        if jumps < scattered.records || !is_worth_it || !self.may_gather(&scattered) {
            return Ok(Step::Idle);
        }
        if self.seal_to_gather(scattered.live)? {
            return Ok(Step::Worked);
        }
        self.extra.jumps.store(0, Ordering::Relaxed);
        self.gather(maintenance, &scattered)?;
        Ok(Step::Worked)
    }

    /// Gathers whatever lies scattered, where there is room for it.
    pub(crate) fn gather_all(&self, maintenance: &mut Maintenance) -> Result<()> {
        let scattered = self.scattered(maintenance);
        let is_scattered = scattered.victims.iter().any(|segment| !segment.is_gathered());
        if is_scattered && self.may_gather(&scattered) {
            self.gather(maintenance, &scattered)?;
        }
        Ok(())
    }

    /// The sealed segments of many records, and what lives in them.
    fn scattered(&self, maintenance: &Maintenance) -> Scattered {
        let mut append = self.append.lock();
        let sealed: Vec<_> =
            append.table.iter().filter(|segment| segment.sealed().is_some()).cloned().collect();
        let mut scattered = Scattered { victims: Vec::new(), records: 0, loose: 0, live: 0 };
        for segment in sealed {
            let Some(account) = append.account(segment.slot) else { continue };
            let (records, live) = (account.record_count(), account.live_bytes());
            if live > records * RECORD_LEN_MAX || maintenance.damaged.contains(&segment.id.0) {
                segment.set_gathered();
                continue;
            }
            scattered.records += records;
            scattered.loose += if segment.is_gathered() { 0 } else { records };
            scattered.live += live;
            scattered.victims.push(segment);
        }
        scattered
    }

    /// Whether there is room for a second copy of all that lives, and memory to remember it.
    fn may_gather(&self, scattered: &Scattered) -> bool {
        let warm = self.warm_allocated(&self.append.lock());
        let disk = self.disk_len.load(Ordering::Relaxed) + scattered.live;
        let more = scattered.live + scattered.live / 8;
        scattered.victims.len() > 1
            && scattered.records * RECORD_LEN <= self.scratch().len()
            && warm + more <= self.demotion_mark()
            && self.options.disk_budget.is_none_or(|most| disk + DISK_RESERVE < most)
    }

    /// Rolls the journal over where much of the log lies in it. Answers whether it did.
    fn seal_to_gather(&self, live: u64) -> Result<bool> {
        let mut append = self.lock_to_roll();
        if append.active.tail() < (live / 64).max(EARLY_SEAL_LEN) {
            return Ok(false);
        }
        self.roll(&mut append, 0)?;
        Ok(true)
    }

    fn gather(&self, maintenance: &mut Maintenance, scattered: &Scattered) -> Result<()> {
        let victims = &scattered.victims;
        let _span = tracing::debug_span!("gather", records = scattered.records).entered();
        self.take_scratch();
        self.sort_all();
        let mut gathered = Gathered::of(victims);
        match self.copy_in_order(&mut gathered, scattered.live) {
            Ok(true) => self.reclaim_rest(maintenance, victims, Aim::Clean, gathered),
            Ok(false) => {
                self.abandon_outputs(gathered.outputs);
                Ok(())
            }
            Err(error) => {
                self.abandon_outputs(gathered.outputs);
                tracing::warn!(%error, "the log was not gathered");
                if self.manifest.has_failed() { Err(error) } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::db::Db;
    use crate::keyspace::Keyspace;
    use crate::options::{Options, PutOptions};
    use crate::warm::active::walk_records;

    const COUNT: u64 = 9000;

    fn key(number: u64) -> String {
        format!("a key that begins like many others {:05}", number * 7919 % 9973)
    }

    fn value(number: u64) -> Vec<u8> {
        let byte = number.to_le_bytes()[0];
        vec![byte; 100 + 4 * usize::from(byte)]
    }

    fn quiet(options: Options) -> Options {
        let mut options = options.segment_size(1 << 20);
        options.workers = false;
        options
    }

    /// A log of several segments, and keys that arrived in no order.
    fn loaded() -> (Db, Keyspace) {
        let db = quiet(Options::new()).temporary().unwrap();
        let ks = db.keyspace("some").unwrap();
        for number in 0..COUNT {
            ks.put(key(number), value(number)).unwrap();
        }
        (db, ks)
    }

    fn settle(ks: &Keyspace) {
        while ks.tiers().step().unwrap() == Step::Worked {}
    }

    /// Walks over everything, `times`, and answers how many rows there were.
    fn walk(ks: &Keyspace, times: u32) -> u64 {
        let mut rows = 0;
        for _ in 0..times {
            ks.scan_with::<&str>(.., |_, _| {
                rows += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        rows
    }

    /// Records of survivors whose key is above the one before them, and those whose key is not.
    fn order_of(ks: &Keyspace) -> (u64, u64) {
        let (mut up, mut down) = (0, 0);
        for segment in ks.tiers().segments.load().iter().filter(|segment| segment.is_gathered()) {
            let mut last = Vec::new();
            walk_records(segment, segment.records_end(), |_, record| {
                *if *record.key > *last { &mut up } else { &mut down } += 1;
                last = record.key.to_vec();
                Ok(())
            })
            .unwrap();
        }
        (up, down)
    }

    fn check(db: &Db, ks: &Keyspace, lives: impl Fn(u64) -> bool) {
        for number in 0..COUNT {
            let found = ks.get(key(number)).unwrap();
            let expected = lives(number).then(|| value(number));
            assert_eq!(found.as_deref(), expected.as_deref(), "{number}");
        }
        assert!(db.audit().unwrap().is_exact());
    }

    #[test]
    fn walks_that_jump_have_the_log_rewritten_in_order_once() {
        let (db, ks) = loaded();
        settle(&ks);
        assert_eq!(order_of(&ks), (0, 0), "nobody walked");
        assert_eq!(walk(&ks, 2), 2 * COUNT);
        settle(&ks);
        assert_eq!(order_of(&ks), (COUNT, 0));
        let moved = db.stats().survivor_bytes;
        assert_eq!(db.stats().records_gathered, COUNT);
        check(&db, &ks, |_| true);
        assert_eq!(walk(&ks, 4), 4 * COUNT);
        assert_eq!(ks.tiers().extra.jumps.load(Ordering::Relaxed), 0, "hints lead to the copies");
        settle(&ks);
        assert_eq!(db.stats().survivor_bytes, moved, "in order it stays as it is");
        let changed = COUNT / 8;
        for number in 0..changed {
            ks.put(key(number), value(number)).unwrap();
        }
        db.sync().unwrap();
        walk(&ks, 30);
        settle(&ks);
        assert_eq!(db.stats().records_gathered, COUNT, "too few lie loose");
    }

    #[test]
    fn what_changed_ended_or_is_held_is_as_it_was_after_gathering() {
        let (db, ks) = loaded();
        let loose = db.keyspace_with("loose", crate::KeyspaceOptions::new().unordered()).unwrap();
        let brief = PutOptions::new().ttl(std::time::Duration::from_millis(1));
        let snapshot = db.snapshot();
        for number in 0..COUNT {
            match number % 4 {
                0 => drop(ks.delete(key(number)).unwrap()),
                1 => ks.put_with(key(number), b"brief", brief).unwrap(),
                _ => loose.put(key(number), b"loose").unwrap(),
            }
        }
        while ks.get(key(COUNT - 3)).unwrap().is_some() {
            std::thread::yield_now();
        }
        db.compact().unwrap();
        let (up, down) = order_of(&ks);
        assert_eq!((up, down), (COUNT / 2, 0));
        check(&db, &ks, |number| number % 4 > 1);
        for number in 0..COUNT {
            let held = snapshot.get(&ks, key(number)).unwrap();
            assert_eq!(held.as_deref(), Some(&value(number)[..]), "{number}");
            assert_eq!(loose.get(key(number)).unwrap().is_some(), number % 4 > 1);
        }
        drop(snapshot);
        settle(&ks);
        check(&db, &ks, |number| number % 4 > 1);
    }

    #[test]
    fn what_is_overwritten_while_it_is_gathered_is_not_shown_again() {
        let (db, ks) = loaded();
        settle(&ks);
        let tiers = ks.tiers();
        let mut maintenance = tiers.maintenance.lock();
        let scattered = tiers.scattered(&maintenance);
        let mut gathered = Gathered::of(&scattered.victims);
        assert!(tiers.copy_in_order(&mut gathered, scattered.live).unwrap());
        for number in (0..COUNT).step_by(3) {
            ks.put(key(number), b"later").unwrap();
        }
        tiers.reclaim_rest(&mut maintenance, &scattered.victims, Aim::Clean, gathered).unwrap();
        drop(maintenance);
        let mut later = 0;
        ks.scan_with::<&str>(.., |_, value| {
            later += u64::from(value == b"later");
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(later, COUNT.div_ceil(3));
        assert!(db.audit().unwrap().is_exact());
    }

    #[test]
    fn without_room_for_a_second_copy_nothing_is_gathered() {
        let db = quiet(Options::new().warm_budget(8 << 20)).temporary().unwrap();
        let ks = db.keyspace("some").unwrap();
        for number in 0..COUNT {
            ks.put(key(number), value(number)).unwrap();
            if number % 500 == 0 {
                settle(&ks);
            }
        }
        settle(&ks);
        let moved = db.stats().survivor_bytes;
        walk(&ks, 4);
        settle(&ks);
        assert_eq!(db.stats().survivor_bytes, moved);
        check(&db, &ks, |_| true);
    }
}
