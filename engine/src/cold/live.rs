//! The live records of one archive, one after another, for who copies them.
//! Knows one archive and which of its records are dead; knows nothing of why they are copied.

use std::sync::Arc;

use crate::cold::ArchiveEntry;
use crate::cold::cursor::{Cursor, CursorRecord};
use crate::error::Result;
use crate::format::cursor::FieldError;
use crate::ids::Incarnation;

/// How often each raw value is read: once to see its key, once to be handed on.
const READINGS: u64 = 2;

/// A place in an archive, in front of a live record.
///
/// A raw value lies in the file once, but entries that somebody forged may share one, and a copy
/// of the file would be as much longer than it as there are entries. So no more bytes of raw values
/// are read than a file of this length can hold.
pub(crate) struct Live {
    entry: Arc<ArchiveEntry>,
    cursor: Cursor,
    raw_left: u64,
}

impl Live {
    /// In front of the first record.
    pub(crate) fn of(entry: &Arc<ArchiveEntry>) -> Self {
        let raw_left = entry.archive.file_len().saturating_mul(READINGS);
        Self { entry: Arc::clone(entry), cursor: entry.archive.cursor(), raw_left }
    }

    /// Goes in front of the first record at or above this key.
    pub(crate) fn seek(&mut self, incarnation: Incarnation, key: &[u8]) -> Result<()> {
        self.cursor.seek(incarnation, key)
    }

    /// The next live record, verified.
    pub(crate) fn next(&mut self) -> Result<Option<CursorRecord<'_>>> {
        let Self { entry, cursor, raw_left } = self;
        let found = cursor.next_if(|ordinal| !entry.dead.is_dead(ordinal))?;
        let Some(found) = found else { return Ok(None) };
        let Some(left) = raw_left.checked_sub(found.raw_len()) else {
            let archive = &entry.archive;
            let most = format!("{} that the file holds", archive.file_len());
            let error = FieldError::new("raw values", "more bytes", most);
            return Err(archive.damage(archive.footer().data_end, error));
        };
        *raw_left = left;
        Ok(Some(found))
    }
}
