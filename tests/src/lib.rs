//! What the suites share: numbers from a seed, directories that go away, the model of a store.
//! Knows what the public names promise; knows nothing of how the engine keeps it.

#![forbid(unsafe_code)]

pub mod fuzzed;
pub mod linear;
pub mod model;
pub mod random;
pub mod scratch;
pub mod serial;
