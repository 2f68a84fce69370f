//! The warm tier: the log, its segments, the index of its newest records, the shared flush.
//! Knows one tier; knows nothing of the hot tier, the archives, or when records move.

pub(crate) mod index;

pub(crate) mod account;
pub(crate) mod active;
pub(crate) mod flush;
pub(crate) mod recover;
pub(crate) mod segment;
pub(crate) mod table;
pub(crate) mod versions;
