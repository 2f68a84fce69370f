//! One step of movement: what is wanted most now, and who is to be its victim.
//! Knows budgets, bounds and accounts; the work itself is elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::ids::Location;
use crate::tiering::Step;
use crate::tiering::relocate::Aim;
use crate::tiering::seal::EARLY_SEAL_LEN;
use crate::tiering::switch::Item;
use crate::tiers::append::Append;
use crate::tiers::debt::garbage_bound;
use crate::tiers::{Maintenance, Tiers};
use crate::warm::segment::Segment;

/// A victim of cleaning has at least this share of garbage, in percent.
const GARBAGE_PERCENT_MIN: u64 = 8;
/// Buckets of the index that are moved for each time the append lock is taken.
const INDEX_BUCKETS: u64 = 512;
/// New keys that are worth sorting in before somebody asks for them in order.
const SORT_LEAST: usize = 1024;

/// A sealed segment and what its account says.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub segment: Arc<Segment>,
    len: u64,
    pub live: u64,
    expired: u64,
    /// Records that movement must remember.
    pub records: u64,
}

impl Candidate {
    fn garbage_percent(&self) -> u64 {
        100 - (self.live * 100 / self.len.max(1)).min(100)
    }
}

impl Tiers {
    /// Does the most wanted piece of movement. A test calls it until it is idle.
    pub(crate) fn step(&self) -> Result<Step> {
        if self.options.read_only {
            return self.check_open().map(|()| Step::Idle);
        }
        let mut maintenance = self.maintenance.lock();
        let maintenance = &mut *maintenance;
        self.check_open()?;
        let result = self.step_locked(maintenance);
        match &result {
            Ok(_) => *self.stuck.lock() = None,
            Err(error) => *self.stuck.lock() = Some(error.clone()),
        }
        let idle = matches!(result, Ok(Step::Idle));
        if idle {
            self.lend_scratch();
        }
        self.measure_space();
        self.watch_handles();
        self.sample_classes();
        self.idle.store(idle, Ordering::Release);
        self.relieved.notify_all();
        result
    }

    fn step_locked(&self, maintenance: &mut Maintenance) -> Result<Step> {
        self.prune_versions();
        if self.seal_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.make_spare(false)? {
            return Ok(Step::Worked);
        }
        if self.demote_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.clean_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.resolve_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.merge_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.order_step(maintenance) == Step::Worked {
            return Ok(Step::Worked);
        }
        if self.gather_step(maintenance)? == Step::Worked {
            return Ok(Step::Worked);
        }
        self.hot.sweep_expired(self.clock.now_ms(), 1024);
        self.note_clock()?;
        Ok(Step::Idle)
    }

    /// Carries on a change of the index's size, or sorts new keys in, a piece at a time, or
    /// rewrites leaves with many keys that have gone.
    fn order_step(&self, maintenance: &mut Maintenance) -> Step {
        let growing = {
            let mut append = self.append.lock();
            self.index.carry_on(&mut append.index, INDEX_BUCKETS).unwrap_or_else(|error| {
                tracing::warn!(%error, "the index could not change its size");
                false
            })
        };
        let worked = growing
            || self.sort_piece(SORT_LEAST)
            || self.sweep_order(&mut maintenance.order_swept);
        if worked { Step::Worked } else { Step::Idle }
    }

    /// Sealed segments that may be reclaimed, the oldest first.
    pub(crate) fn candidates(
        &self,
        append: &mut Append,
        maintenance: &Maintenance,
    ) -> Vec<Candidate> {
        let now = self.clock.now_ms();
        let sealed: Vec<_> =
            append.table.iter().filter(|segment| segment.sealed().is_some()).cloned().collect();
        let mut candidates = Vec::new();
        for segment in sealed {
            if maintenance.damaged.contains(&segment.id.0) {
                continue;
            }
            let Some(account) = append.account(segment.slot) else { continue };
            let expired = account.expired_bytes(now);
            let live = account.live_bytes() - expired + account.pinned_bytes;
            let len = segment.sealed().map_or(0, |facts| facts.len);
            let records = account.record_count();
            candidates.push(Candidate { segment, len, live, expired, records });
        }
        candidates.sort_by_key(|candidate| candidate.segment.id);
        candidates
    }

    /// Demotes the oldest segments while the log or the index is over its share.
    fn demote_step(&self, maintenance: &mut Maintenance) -> Result<Step> {
        let (budget, high) = (self.options.warm_budget, self.demotion_mark());
        let index_share = self.options.memory_budget / 2;
        let (warm, candidates) = {
            let mut append = self.append.lock();
            let warm = self.warm_allocated(&append);
            (warm, self.candidates(&mut append, maintenance))
        };
        let index_len = self.index.charged_len() + self.order_len();
        let index_over = index_len > index_share;
        if warm <= high && !index_over {
            return Ok(Step::Idle);
        }
        let excess = warm.saturating_sub(high).max(budget / 8);
        let most = excess.min(self.batch_len_max());
        let mut victims = Vec::new();
        let (mut taken, mut records) = (0, 0);
        for candidate in candidates {
            records += candidate.records;
            let too_many = records > self.scratch().records_max() && !victims.is_empty();
            if taken >= most || too_many {
                break;
            }
            taken += candidate.len;
            victims.push(candidate.segment);
        }
        if victims.is_empty() {
            return self.seal_for_demotion();
        }
        self.move_from(maintenance, &victims, Aim::Demote)?;
        Ok(Step::Worked)
    }

    /// Rolls the journal over when what is over the budget lies in it, or is attached to it: what
    /// is not sealed cannot go down.
    fn seal_for_demotion(&self) -> Result<Step> {
        let mut append = self.lock_to_roll();
        let attached: u64 = append.attached.iter().map(|(writer, _)| writer.allocated()).sum();
        if append.active.tail() + attached < EARLY_SEAL_LEN {
            return Ok(Step::Idle);
        }
        self.roll(&mut append, 0)?;
        Ok(Step::Worked)
    }

    /// Bytes of victims that one batch may take.
    fn batch_len_max(&self) -> u64 {
        self.options.memory_budget.clamp(4 << 20, 256 << 20)
    }

    /// Cleans while the log takes more than its bound.
    fn clean_step(&self, maintenance: &mut Maintenance) -> Result<Step> {
        let (warm, live, mut candidates) = {
            let mut append = self.append.lock();
            let candidates = self.candidates(&mut append, maintenance);
            let now = self.clock.now_ms();
            let live = append.pinned_bytes() + append.live_bytes()
                - append.accounts.iter().flatten().map(|a| a.expired_bytes(now)).sum::<u64>();
            (self.warm_allocated(&append), live, candidates)
        };
        let worthless: Vec<_> = candidates
            .iter()
            .filter(|candidate| candidate.live == 0 || candidate.expired * 2 > candidate.len)
            .map(|candidate| Arc::clone(&candidate.segment))
            .collect();
        if !worthless.is_empty() {
            self.move_from(maintenance, &worthless, Aim::Clean)?;
            return Ok(Step::Worked);
        }
        if warm <= garbage_bound(live) {
            return self.seal_early(live);
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.garbage_percent()));
        let mut victims = Vec::new();
        let (mut kept, mut records) = (0, 0);
        for candidate in candidates {
            records += candidate.records;
            let too_many = records > self.scratch().records_max();
            if candidate.garbage_percent() < GARBAGE_PERCENT_MIN
                || !victims.is_empty()
                    && (kept + candidate.live > self.options.segment_size || too_many)
            {
                break;
            }
            kept += candidate.live;
            victims.push(candidate.segment);
        }
        if victims.is_empty() {
            return self.seal_early(live);
        }
        self.move_from(maintenance, &victims, Aim::Clean)?;
        Ok(Step::Worked)
    }

    /// Reclaims victims with the memory that movement has for it.
    pub(crate) fn move_from(
        &self,
        maintenance: &mut Maintenance,
        victims: &[Arc<Segment>],
        aim: Aim,
    ) -> Result<()> {
        self.take_scratch();
        self.reclaim(maintenance, victims, aim)
    }

    /// Rolls a journal over that is mostly garbage, or idle while the log is over its bound.
    fn seal_early(&self, live: u64) -> Result<Step> {
        let now = self.clock.now_ms();
        let mut append = self.lock_to_roll();
        let warm = self.warm_allocated(&append);
        let len = append.active.tail();
        let slot = append.active.segment.slot;
        let Some(account) = append.account(slot) else { return Ok(Step::Idle) };
        let active_live = account.live_bytes() - account.expired_bytes(now) + account.pinned_bytes;
        let garbage = account.record_bytes.saturating_sub(active_live);
        let over = warm > garbage_bound(live);
        let idle = now.saturating_sub(append.written_ms) > 5000;
        let mostly_garbage = garbage * 2 > len;
        if len < EARLY_SEAL_LEN || !(mostly_garbage && (over || active_live == 0 && idle)) {
            return Ok(Step::Idle);
        }
        self.roll(&mut append, 0)?;
        Ok(Step::Worked)
    }

    /// Looks the keys of one sealed segment up in the archives and marks older copies dead.
    fn resolve_step(&self, maintenance: &mut Maintenance) -> Result<Step> {
        if self.cold.load().entries().is_empty() {
            return Ok(Step::Idle);
        }
        let table = self.segments.load_full();
        let next = table.iter().find(|segment| {
            segment.sealed().is_some()
                && !segment.resolved.load(Ordering::Relaxed)
                && !maintenance.damaged.contains(&segment.id.0)
        });
        let Some(segment) = next else { return Ok(Step::Idle) };
        // A reader that missed in the index before a mark and in the archive after it asks again.
        self.moved();
        let Ok(trailer) = segment.trailer() else {
            maintenance.damaged.push(segment.id.0);
            return Ok(Step::Worked);
        };
        for entry in trailer.entries() {
            let entry = entry.map_err(|e| segment.damage("read trailer", 0, e))?;
            if entry.superseded || !self.keyspaces.is_kept(entry.incarnation) {
                continue;
            }
            let from = Location::new(segment.slot, entry.offset);
            match self.mark_older_dead(&Item { tag: entry.tag, from }) {
                Err(Error::Corrupt(_)) => {
                    self.note_damage(Location::new(segment.slot, entry.offset));
                }
                other => other?,
            }
        }
        segment.resolved.store(true, Ordering::Release);
        Ok(Step::Worked)
    }

    /// Seals the journal, cleans every segment that holds garbage, gathers what lies scattered, and
    /// packs the archives as well as can be.
    pub(crate) fn compact(&self) -> Result<()> {
        self.check_writable("compact")?;
        self.compact_log()?;
        self.compact_archives(&mut self.maintenance.lock())?;
        self.measure_space();
        Ok(())
    }

    /// Seals the journal as it is now.
    pub(crate) fn seal_log(&self) -> Result<()> {
        let mut append = self.lock_to_roll();
        if !append.active.is_empty() {
            self.roll(&mut append, 0)?;
        }
        drop(append);
        let mut maintenance = self.maintenance.lock();
        while self.seal_step(&mut maintenance)? == Step::Worked {}
        Ok(())
    }

    pub(crate) fn compact_log(&self) -> Result<()> {
        self.seal_log()?;
        self.settle(u32::MAX)?;
        let mut maintenance = self.maintenance.lock();
        let candidates = self.candidates(&mut self.append.lock(), &maintenance);
        for candidate in candidates.iter().filter(|c| c.garbage_percent() >= GARBAGE_PERCENT_MIN) {
            self.move_from(&mut maintenance, &[Arc::clone(&candidate.segment)], Aim::Clean)?;
        }
        self.gather_all(&mut maintenance)
    }

    /// Moves until nothing is wanted, or `rounds` steps were taken.
    pub(crate) fn settle(&self, rounds: u32) -> Result<bool> {
        for _ in 0..rounds {
            if self.step()? == Step::Idle {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a flush is due: a second has passed, or 8 MiB were written.
    pub(crate) fn flush_is_due(&self) -> bool {
        let append = self.append.lock();
        let age = self.clock.now_ms().saturating_sub(append.unflushed_since_ms);
        append.unflushed_since_ms != 0
            && (age >= crate::limits::UNFLUSHED_AGE_MS
                || append.unflushed_bytes >= crate::limits::UNFLUSHED_LEN_START)
    }

    /// Records that the index holds, tombstones included.
    pub(crate) fn index_count(&self) -> u64 {
        self.index.count()
    }

    /// Whether the store is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
