//! Space that is owed: how far the log and the disk are over their budgets, and how puts wait.
//! Knows figures and waiting; what gives space back is movement's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::DISK_RESERVE;
use crate::tiers::write::Mutation;
use crate::tiers::{Tiers, bump};

/// Waits of 20 ms after which an idle movement is believed to have nothing more to give.
const WAITS_MIN: u32 = 50;

/// How urgently space is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debt {
    /// Puts go on.
    None,
    /// Puts wait a moment each.
    Some,
    /// Puts wait until there is space, or fail.
    Full,
}

impl Tiers {
    /// Waits while the log is over its budget, gently at first; fails when waiting cannot help.
    pub(crate) fn wait_for_space(&self, mutations: &[Mutation<'_>]) -> Result<()> {
        if mutations.iter().all(|mutation| mutation.value.is_none()) {
            return Ok(());
        }
        let mut waited = 0_u32;
        loop {
            let debt = self.space_debt();
            if debt == Debt::None || debt == Debt::Some && waited > 0 {
                return Ok(());
            }
            if debt == Debt::Full {
                self.fail_if_stuck(waited)?;
            }
            self.nudge();
            bump(&self.counters.put_waits, 1);
            if !self.options.workers {
                return Ok(());
            }
            let mut pressure = self.pressure.lock();
            let wait = Duration::from_millis(if debt == Debt::Some { 1 } else { 20 });
            self.relieved.wait_for(&mut pressure, wait);
            drop(pressure);
            self.check_open()?;
            waited += 1;
        }
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

    /// How far the log and the disk are over what they may take.
    pub(crate) fn space_debt(&self) -> Debt {
        let warm = self.warm_len.load(Ordering::Relaxed);
        let budget = self.options.warm_budget;
        if self.disk_is_full() || warm >= budget {
            Debt::Full
        } else if warm >= budget - budget / 16 {
            Debt::Some
        } else {
            Debt::None
        }
    }
}
