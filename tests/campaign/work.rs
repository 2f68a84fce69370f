//! The work that is cut: operations from a seed on tiny tiers, so that a few dozen of them seal,
//! clean, demote, merge, promote and reopen, with faults of the disk between them.
//! Knows operations and what they lead to; knows nothing of crashes.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs, TimeSource};
use terrace::{Db, DemotePolicy, Durability, Error, Keyspace, PutOptions, Result, Snapshot};
use terrace_tests::random::Random;

use crate::history::{History, KEYS, KEYSPACES, State, content, digest, key, shows};
use crate::judge::{HOME, options};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is done; the next may come.
    Done,
    /// The store failed: what was begun is unknown.
    Failed,
}

fn is_full(error: &Error) -> bool {
    match error {
        Error::Full { .. } => true,
        Error::Io { source, .. } => source.kind() == ErrorKind::StorageFull,
        _ => false,
    }
}

/// A store at work.
pub(crate) struct Worker {
    pub disk: SimVfs,
    pub time: Arc<ManualTime>,
    pub random: Random,
    pub history: History,
    /// Percent of operations that are a batch with a segment of its own.
    pub large_percent: u64,
    db: Option<Db>,
    /// The disk failed since the store was opened: behind its back too, where movement writes.
    was_broken: bool,
    snapshot: Option<Snapshot>,
}

impl Worker {
    pub(crate) fn new(
        disk: SimVfs,
        time: Arc<ManualTime>,
        random: Random,
        history: History,
        large_percent: u64,
    ) -> Self {
        Self {
            disk,
            time,
            random,
            history,
            large_percent,
            db: None,
            was_broken: false,
            snapshot: None,
        }
    }

    /// One operation; `Err` tells what is wrong with an answer of the living store.
    pub(crate) fn operation(&mut self) -> std::result::Result<Ended, String> {
        let Some(db) = self.db.take() else { return Ok(self.open()) };
        let before = self.history.len();
        let is_faulty = self.random.below(40) == 0;
        if is_faulty {
            self.break_disk();
            self.was_broken = true;
        }
        let done = self.one(&db);
        if is_faulty {
            self.disk.heal();
        }
        match done {
            Ok(true) => self.history.finish(&db),
            // The store was closed.
            Ok(false) => return Ok(Ended::Done),
            Err(error) if is_full(&error) => {
                // Refused: nothing has changed, and the store goes on.
                self.history.take_back(before);
                self.look(&db).map_err(|text| format!("behind {error}: {text}"))?;
            }
            Err(_) if is_faulty => return Ok(Ended::Failed),
            // A failure that was nobody's to answer is told to the next who writes.
            Err(Error::Poisoned { .. }) if self.was_broken => return Ok(Ended::Failed),
            Err(error) => return Err(format!("an operation failed: {error}")),
        }
        if self.random.below(6) == 0 {
            self.look(&db)?;
        }
        self.db = Some(db);
        Ok(Ended::Done)
    }

    fn open(&mut self) -> Ended {
        self.snapshot = None;
        self.was_broken = false;
        match options(&self.disk, &self.time).open(HOME) {
            Ok(db) => {
                self.history.finish(&db);
                self.db = Some(db);
                Ended::Done
            }
            Err(_) => Ended::Failed,
        }
    }

    fn break_disk(&mut self) {
        let k = 1 + self.random.below(6);
        match self.random.below(5) {
            0 | 1 => self.disk.set_capacity(self.disk.used() + self.random.below(1 << 20)),
            2 => self.disk.fail_sync_at(k),
            3 => self.disk.fail_write_at(k),
            _ => self.disk.fail_read_at(k),
        }
    }

    /// The living store shows the last state.
    fn look(&self, db: &Db) -> std::result::Result<(), String> {
        let shown = content(db).map_err(|error| format!("a walk failed: {error}"))?;
        let now = self.time.wall_ms();
        if shows(&self.history.last(), &shown, now) {
            return Ok(());
        }
        Err(format!("the living store shows {} other keys", shown.len()))
    }

    /// Answers whether the store is still open.
    fn one(&mut self, db: &Db) -> Result<bool> {
        let mut next = self.history.last();
        match self.random.below(100) {
            0..=34 => self.put(db, &mut next, None)?,
            35..=40 => {
                let ttl = Duration::from_millis(1 + self.random.below(5000));
                self.put(db, &mut next, Some(ttl))?;
            }
            41..=54 => self.delete(db, &mut next)?,
            55..=63 => self.batch(db, &mut next)?,
            64..=65 => self.end(db, &mut next)?,
            66..=71 => db.sync()?,
            72..=79 => (0..4).try_for_each(|_| db.step().map(drop))?,
            80..=83 => db.compact()?,
            84 | 85 => db.archive_all()?,
            86 => self.demote(db)?,
            87 | 88 => self.snapshot = Some(db.snapshot()),
            89..=91 => self.snapshot = None,
            92..=94 => self.time.advance(Duration::from_millis(self.random.below(4000))),
            95 | 96 => self.step_clock_back(db)?,
            97 => {
                self.snapshot = None;
                if db.clone().close().is_ok() {
                    self.history.finish(db);
                }
                return Ok(false);
            }
            _ if self.random.below(100) < self.large_percent => self.large(db, &mut next)?,
            _ => drop(db.step()?),
        }
        Ok(true)
    }

    fn keyspace(&mut self, db: &Db) -> Result<(usize, Keyspace)> {
        let at = usize::from(self.random.below(3) == 0);
        Ok((at, db.keyspace(KEYSPACES[at])?))
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(40) {
            0 => 20_000 + self.random.within(0..40_000),
            1..=4 => 2000 + self.random.within(0..6000),
            _ => self.random.within(0..400),
        };
        if self.random.chance(50) {
            return self.random.bytes(len);
        }
        vec![self.random.bits().to_le_bytes()[0]; len]
    }

    fn put(&mut self, db: &Db, next: &mut State, ttl: Option<Duration>) -> Result<()> {
        let (at, ks) = self.keyspace(db)?;
        let (number, value) = (self.random.below(KEYS.into()).to_le_bytes()[0], self.value());
        let mut options = PutOptions::new();
        if self.random.chance(15) {
            options = options.durability(Durability::Synced);
        }
        let mut deadline = None;
        if let Some(ttl) = ttl {
            options = options.ttl(ttl);
            deadline = Some(self.time.wall_ms() + u64::try_from(ttl.as_millis()).unwrap_or(0));
        }
        next.insert((at, number), (digest(&value), deadline));
        self.history.begin(next.clone());
        ks.put_with(key(number), value, options)
    }

    fn delete(&mut self, db: &Db, next: &mut State) -> Result<()> {
        let (at, ks) = self.keyspace(db)?;
        let number = self.random.below(KEYS.into()).to_le_bytes()[0];
        next.remove(&(at, number));
        self.history.begin(next.clone());
        ks.delete(key(number)).map(drop)
    }

    fn batch(&mut self, db: &Db, next: &mut State) -> Result<()> {
        let mut batch = db.batch();
        for _ in 0..2 + self.random.below(5) {
            let (at, ks) = self.keyspace(db)?;
            let number = self.random.below(KEYS.into()).to_le_bytes()[0];
            if self.random.chance(25) {
                next.remove(&(at, number));
                batch.delete(&ks, key(number));
            } else {
                let value = self.value();
                next.insert((at, number), (digest(&value), None));
                batch.put(&ks, key(number), value);
            }
        }
        self.history.begin(next.clone());
        let synced = self.random.chance(30);
        batch.commit_with(if synced { Durability::Synced } else { Durability::Buffered })
    }

    /// A batch that needs a segment of its own.
    fn large(&mut self, db: &Db, next: &mut State) -> Result<()> {
        let (at, ks) = self.keyspace(db)?;
        let mut batch = db.batch();
        for len in [530_000, 530_000] {
            let number = self.random.below(KEYS.into()).to_le_bytes()[0];
            let value = vec![self.random.bits().to_le_bytes()[0] | 1; len];
            next.insert((at, number), (digest(&value), None));
            batch.put(&ks, key(number), value);
        }
        self.history.begin(next.clone());
        batch.commit_with(Durability::Buffered)
    }

    fn demote(&mut self, db: &Db) -> Result<()> {
        let (_, ks) = self.keyspace(db)?;
        let all = self.random.chance(50);
        db.demote(&ks, if all { DemotePolicy::All } else { DemotePolicy::Unread }).map(drop)
    }

    /// Clears a keyspace, or drops it.
    fn end(&mut self, db: &Db, next: &mut State) -> Result<()> {
        let (at, ks) = self.keyspace(db)?;
        next.retain(|(of, _), _| *of != at);
        self.history.begin(next.clone());
        if self.random.chance(50) {
            return ks.clear();
        }
        db.drop_keyspace(KEYSPACES[at]).map(drop)
    }

    /// While the process lives the wall clock goes back a day; nothing that expired is there again.
    fn step_clock_back(&self, db: &Db) -> Result<()> {
        let now = self.time.wall_ms();
        self.time.set_wall_ms(now - 86_400_000);
        let shown = content(db);
        self.time.set_wall_ms(now);
        let is_last = shows(&self.history.last(), &shown?, now);
        assert!(is_last, "the wall clock went back, and the store shows something else");
        Ok(())
    }
}
