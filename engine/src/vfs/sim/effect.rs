//! What a running process did and the disk may not have yet.
//! Knows one change each; knows nothing of which of them survive.

use std::sync::Arc;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_LEN: u64 = 512;
/// Names a file or a directory for the life of the disk; never reused.
pub(super) type NodeId = u64;

/// One change that a running process made and the disk may not have yet.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub node: NodeId,
    pub change: Change,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Bytes within one sector. `mapped` when they were stored through a map: such a sector may
    /// reach the disk while it is being written.
    Bytes { offset: u64, bytes: Arc<[u8]>, mapped: bool },
    /// The file grew.
    Length(u64),
    /// The bytes read as zeros.
    Punch { from: u64, to: u64 },
    /// The name leads to another node, or to none.
    Name { name: String, target: Option<NodeId> },
}
