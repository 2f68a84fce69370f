//! The index of the warm tier, part by part: buckets, one table of them, the index that grows, and
//! the order of its keys in leaves.

pub(crate) mod bucket;
pub(crate) mod fence;
pub(crate) mod leaf;
pub(crate) mod order;
pub(crate) mod point;
pub(crate) mod shelf;
pub(crate) mod table;
