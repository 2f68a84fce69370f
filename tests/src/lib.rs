//! What the suites share: numbers from a seed, directories that go away, the model of a store.
//! Knows what the public names promise; knows nothing of how the engine keeps it.

#![forbid(unsafe_code)]

// The engine's kernels over other atomics and locks: `crate::shim` says which. Without the unit
// tests in these sources, which want those of std.
#[cfg(not(test))]
#[path = "../../engine/src/warm/index/bucket.rs"]
#[expect(dead_code, reason = "the models use a part of it")]
mod bucket;
#[cfg(not(test))]
mod canary;
#[cfg(not(test))]
#[path = "../../engine/src/error.rs"]
#[expect(dead_code, unreachable_pub, reason = "the flush names two of its variants")]
mod error;
#[cfg(not(test))]
#[path = "../../engine/src/warm/flush.rs"]
mod flush;
#[cfg(not(test))]
#[path = "../../engine/src/ids.rs"]
#[expect(dead_code, reason = "the models use a part of it")]
mod ids;
#[cfg(not(test))]
pub mod kernels;
#[cfg(not(test))]
#[path = "../../engine/src/vfs/published.rs"]
mod published;
#[cfg(not(test))]
mod shim;
#[cfg(not(test))]
mod warm;

pub mod fuzzed;
pub mod linear;
pub mod model;
pub mod processor;
pub mod random;
pub mod scratch;
pub mod serial;
