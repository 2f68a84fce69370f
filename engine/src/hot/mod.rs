//! Stand-in until the hot tier is merged.
use crate::hash::KeyHash;
use crate::ids::Incarnation;
#[derive(Debug)]
pub(crate) struct HotTier;
impl HotTier {
    pub(crate) fn new(_shards: usize, _budget: u64) -> Self { Self }
    pub(crate) fn set_budget(&self, _bytes: u64) {}
    pub(crate) fn replace_with<R>(&self, _h: KeyHash, _i: Incarnation, _k: &[u8], switch: impl FnOnce() -> R) -> R { switch() }
    pub(crate) fn sweep_expired(&self, _now: u64, _max: usize) -> usize { 0 }
}
