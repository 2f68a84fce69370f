//! The index of the warm tier, part by part: buckets, one table of them, the index that grows.

pub(crate) mod bucket;
pub(crate) mod point;
pub(crate) mod table;
