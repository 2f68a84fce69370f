//! The bytes of a file that does not change any more: lent by its map, or read by a call each time.
//! Knows places in one file; knows nothing of what stands there.

use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::vfs::File;
use crate::vfs::map::Map;

/// A file to be read.
#[derive(Debug)]
pub(crate) enum View {
    Mapped(Arc<Map>),
    /// Where files are not mapped: nothing of it stays in memory.
    Called {
        file: Arc<dyn File>,
        len: u64,
    },
}

/// Some bytes of a file.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Lent(&'a [u8]),
    Read(Vec<u8>),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

impl View {
    /// The first `len` bytes of a file.
    pub(crate) fn of(file: Arc<dyn File>, len: u64) -> io::Result<Self> {
        if file.is_mapped() {
            return Ok(Self::Mapped(file.map(len, len)?));
        }
        Ok(Self::Called { file, len })
    }

    /// The map, where there is one.
    pub(crate) fn map(&self) -> Option<&Arc<Map>> {
        match self {
            Self::Mapped(map) => Some(map),
            Self::Called { .. } => None,
        }
    }

    /// So many bytes from `offset` on; `None` unless all of them are inside. An error is one of the
    /// device, and never stands for an end of the file.
    pub(crate) fn piece(&self, offset: u64, len: u64) -> io::Result<Option<Piece<'_>>> {
        let Some(end) = offset.checked_add(len) else { return Ok(None) };
        match self {
            Self::Mapped(map) => {
                let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end)) else {
                    return Ok(None);
                };
                Ok(map.slice(from..to).map(Piece::Lent))
            }
            Self::Called { len: file_len, .. } if end > *file_len => Ok(None),
            Self::Called { file, .. } => {
                let mut bytes = Vec::new();
                let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
                bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
                bytes.resize(len, 0);
                file.read_exact_at(&mut bytes, offset)?;
                Ok(Some(Piece::Read(bytes)))
            }
        }
    }

    /// Starts reading the pages of `range` in, where they will be mapped.
    pub(crate) fn prefetch(&self, range: Range<u64>) {
        if let Self::Mapped(map) = self {
            map.prefetch(range);
        }
    }
}
