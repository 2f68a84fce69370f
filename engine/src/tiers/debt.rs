//! Space that is owed: how far the log and the disk are over their budgets, and how puts wait.
//! Knows figures and waiting; what gives space back is movement's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::DISK_RESERVE;
use crate::tiers::append::Append;
use crate::tiers::write::Mutation;
use crate::tiers::{Tiers, bump};

/// What one put waits at most while the log is about to reach its budget, or over it. The timers of
/// the kernel add some; together it stays below a millisecond.
const PAUSE_MAX: Duration = Duration::from_micros(800);
/// How long a put waits at a time when only freed space can help.
const FULL_WAIT: Duration = Duration::from_millis(20);
/// Such waits after which an idle movement is believed to have nothing more to give.
const WAITS_MIN: u32 = 50;

/// Garbage that is never worth moving for: headers, trailers, one open chunk, one small segment.
const GARBAGE_LEN: u64 = 2 << 20;
/// Puts are slowed down once garbage lies so far over its bound, or by half of it, and are at their
/// slowest at twice that. Less would make cleaning copy more than it frees.
const GARBAGE_SLACK_MIN: u64 = 8 << 20;

/// Bytes that the log may take for so many live ones before cleaning begins.
pub(crate) fn garbage_bound(live: u64) -> u64 {
    live + live / 5 + GARBAGE_LEN
}

/// How urgently space is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debt {
    /// Puts go on.
    None,
    /// Puts wait a moment each: so many thousandths of the longest.
    Some(u32),
    /// Puts wait until there is space, or fail.
    Full,
}

impl Tiers {
    /// Waits while the log is near its budget or over it: the nearer, the longer, at most a
    /// millisecond a put. At a limit that cannot be passed it waits for space, and fails when
    /// waiting cannot help.
    pub(crate) fn wait_for_space(&self, mutations: &[Mutation<'_>]) -> Result<()> {
        let puts = mutations.iter().filter(|mutation| mutation.value.is_some()).count();
        if puts == 0 {
            return Ok(());
        }
        let mut waited = 0_u32;
        loop {
            match self.space_debt() {
                Debt::None => return Ok(()),
                Debt::Some(_) if !self.options.workers => return Ok(()),
                Debt::Some(share) => return self.pause(share, puts),
                Debt::Full => self.fail_if_stuck(waited)?,
            }
            bump(&self.counters.put_waits, 1);
            if !self.options.workers {
                return Ok(());
            }
            self.wait_a_while(FULL_WAIT)?;
            waited += 1;
        }
    }

    /// Slows a write down by what its puts are worth, unless movement catches up meanwhile.
    fn pause(&self, share: u32, puts: usize) -> Result<()> {
        let puts = u32::try_from(puts).unwrap_or(u32::MAX);
        let mut rest = (PAUSE_MAX * share / 1000).saturating_mul(puts);
        bump(&self.counters.put_waits, 1);
        while !rest.is_zero() {
            let some = rest.min(FULL_WAIT);
            self.wait_a_while(some)?;
            rest -= some;
            match self.space_debt() {
                Debt::Some(_) => {}
                _ => break,
            }
        }
        Ok(())
    }

    fn wait_a_while(&self, wait: Duration) -> Result<()> {
        self.nudge();
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        bump(&self.counters.put_wait_us, micros);
        let mut pressure = self.pressure.lock();
        self.relieved.wait_for(&mut pressure, wait);
        drop(pressure);
        self.check_open()
    }

    /// Waiting helps nobody when movement fails, or when it has nothing left to do.
    fn fail_if_stuck(&self, waited: u32) -> Result<()> {
        if let Some(error) = self.stuck.lock().clone() {
            return Err(error);
        }
        if waited < WAITS_MIN || !self.idle.load(Ordering::Acquire) {
            return Ok(());
        }
        let doing = "put";
        Err(match self.options.disk_budget {
            Some(limit) if self.disk_is_full() => {
                let used = self.disk_len.load(Ordering::Relaxed);
                Error::Full { doing, what: "disk budget", used, limit }
            }
            _ => {
                let used = self.warm_len.load(Ordering::Relaxed);
                Error::Full { doing, what: "warm budget", used, limit: self.options.warm_budget }
            }
        })
    }

    fn disk_is_full(&self) -> bool {
        let disk = self.disk_len.load(Ordering::Relaxed);
        self.options.disk_budget.is_some_and(|most| disk + DISK_RESERVE >= most)
    }

    /// How far the log and the disk are over what they may take, and garbage over what cleaning
    /// lets be. The log may lie a quarter over its
    /// budget for a moment: what is written faster than it can go down waits there.
    pub(crate) fn space_debt(&self) -> Debt {
        let warm = self.warm_len.load(Ordering::Relaxed);
        let budget = self.options.warm_budget;
        if self.disk_is_full() || warm >= budget + budget / 4 {
            return Debt::Full;
        }
        let over = warm.saturating_sub(budget - budget / 8);
        let garbage = self.extra.garbage_over.load(Ordering::Relaxed);
        let slack = GARBAGE_SLACK_MIN.max((warm - garbage.min(warm)) / 2);
        let garbage = garbage.saturating_sub(slack);
        let share = (over * 1000 / (budget / 8)).max(garbage.saturating_mul(1000) / slack);
        match u32::try_from(share).unwrap_or(1000).min(1000) {
            0 => Debt::None,
            share => Debt::Some(share),
        }
    }

    /// Notes what the log takes, and how much of it is garbage over its bound.
    pub(crate) fn note_space(&self, append: &Append) {
        let warm = self.warm_allocated(append);
        let bound = garbage_bound(append.live_bytes() + append.pinned_bytes());
        self.warm_len.store(warm, Ordering::Relaxed);
        self.extra.garbage_over.store(warm.saturating_sub(bound), Ordering::Relaxed);
    }

    /// Bytes that movement owes: the log over the share of its budget at which demotion begins, and
    /// garbage over its bound.
    pub(crate) fn debt_bytes(&self) -> u64 {
        let warm = self.warm_len.load(Ordering::Relaxed);
        let over = warm.saturating_sub(self.demotion_mark());
        over.max(self.extra.garbage_over.load(Ordering::Relaxed))
    }

    /// Bytes of log above which the coldest of it goes down.
    pub(crate) fn demotion_mark(&self) -> u64 {
        self.options.warm_budget - self.options.warm_budget / 4
    }
}
