//! When records move: sealing, cleaning, demotion, merging, expiry, as steps that a worker or a
//! test calls one at a time. Knows budgets and bounds; knows nothing of the public handles.

pub(crate) mod bits;
pub(crate) mod budget;
pub(crate) mod close;
pub(crate) mod compacting;
pub(crate) mod decide;
pub(crate) mod demoting;
pub(crate) mod gather;
pub(crate) mod merging;
pub(crate) mod relocate;
pub(crate) mod scattered;
pub(crate) mod seal;
pub(crate) mod sorting;
pub(crate) mod survivor;
pub(crate) mod switch;
pub(crate) mod workers;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is wanted now.
    Idle,
    /// Something moved; there may be more to do.
    Worked,
}
