//! One file of the source, mapped as long as it is.
//! Knows bytes and what the file is taken for; knows nothing of what they say.

use std::sync::Arc;

use crate::error::Damage;
use crate::format::cursor::FieldError;
use crate::manifest::FileState;
use crate::vfs::map::Map;

pub(super) const DOING: &str = "salvage";

/// One file of the source, mapped as long as it is.
#[derive(Debug)]
pub(crate) struct Image {
    pub id: u32,
    pub name: String,
    pub state: FileState,
    pub len: u64,
    map: Arc<Map>,
}

impl Image {
    pub(crate) fn new(id: u32, name: String, state: FileState, len: u64, map: Arc<Map>) -> Self {
        Self { id, name, state, len, map }
    }

    pub(crate) fn slice(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.map.slice(start..start.checked_add(usize::try_from(len).ok()?)?)
    }

    /// All bytes from `offset` to the end.
    pub(crate) fn rest(&self, offset: u64) -> &[u8] {
        self.slice(offset, self.len.saturating_sub(offset)).unwrap_or_default()
    }

    pub(crate) fn damage(&self, offset: u64, error: FieldError) -> Damage {
        error.at(DOING, &self.name, offset)
    }
}
