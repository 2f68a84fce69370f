//! The row that a budget is judged by: the sum of what counts, and the reservations that are open.
//! Pure arithmetic; knows nothing of rows or commits.

use serde::{Deserialize, Serialize};

use crate::store::Millis;

/// The one row that every change of a budget rewrites under a guard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Tokens used in the window, as of the cutoff.
    pub used: u64,
    /// Tokens ever used.
    pub total: u64,
    /// What was used at or before this moment is no longer in `used`.
    pub cutoff: Option<Millis>,
    /// When something was last used.
    pub last: Millis,
    /// The window that `used` is of.
    pub window: String,
    /// Changes so far.
    pub changes: u64,
    pub open: Vec<Open>,
}

/// A reservation that was neither settled nor refunded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub request_id: String,
    pub at_most: u64,
    pub deadline: Millis,
    /// Tells it from an earlier one of the same request.
    pub token: u64,
}

impl Header {
    /// Forgets reservations whose time is over.
    pub(crate) fn expire(&mut self, now: Millis) {
        self.open.retain(|open| open.deadline > now);
    }

    /// Takes the reservation of this request out.
    pub(crate) fn take(&mut self, request_id: &str) -> Option<Open> {
        let index = self.open.iter().position(|open| open.request_id == request_id)?;
        Some(self.open.swap_remove(index))
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.open.iter().fold(0, |sum, open| sum.saturating_add(open.at_most))
    }

    pub(crate) fn remaining(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.used).saturating_sub(self.reserved())
    }

    pub(crate) fn add(&mut self, tokens: u64, now: Millis) {
        self.used = self.used.saturating_add(tokens);
        self.total = self.total.saturating_add(tokens);
        self.last = self.last.max(now);
        self.changes += 1;
    }
}
