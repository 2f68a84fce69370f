//! A bound that only grows: what was done before it was raised is seen by whoever reads it.
//! Knows a number; knows nothing of what lies below it.

use crate::shim::atomic::{AtomicU64, Ordering};

/// How far others may look.
#[derive(Debug)]
pub(crate) struct Published(AtomicU64);

impl Published {
    pub(crate) fn new(to: u64) -> Self {
        Self(AtomicU64::new(to))
    }

    /// The bound. Everything that its writer did before raising it that far has happened.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises it. Duty: one writer at a time, and never down.
    #[inline]
    pub(crate) fn raise(&self, to: u64) {
        self.0.store(to, Ordering::Release);
    }
}
