//! The file of an archive while it is opened: who it is, and what its regions hold.
//! Knows one file; decides nothing about damage.

use std::path::PathBuf;

use crate::error::{Damage, Error, Result};
use crate::format::archive::{
    ARCHIVE_FOOTER_LEN, ARCHIVE_HEADER_LEN, ARCHIVE_VERSION, ArchiveFooter, ArchiveHeader,
    FORMAT_VERSION_FIELD, Region, header_version,
};
use crate::format::cursor::Decoded;
use crate::ids::ArchiveId;
use crate::vfs::Dir;
use crate::vfs::view::{Piece, View};

const OPENING: &str = "open archive";

/// What `open` has read before it knows whether the rest is sound.
pub(super) struct Opening {
    pub name: String,
    path: PathBuf,
    pub len: u64,
    pub view: View,
}

impl Opening {
    pub(super) fn read(dir: &dyn Dir, id: ArchiveId) -> Result<Self> {
        let name = id.to_string();
        let path = dir.path().join(&name);
        let io = |source| Error::io(OPENING, &path, source);
        let file = dir.open(&name).map_err(io)?;
        let len = file.len().map_err(io)?;
        let min = (ARCHIVE_HEADER_LEN + ARCHIVE_FOOTER_LEN) as u64;
        if len < min || !len.is_multiple_of(8) || usize::try_from(len).is_err() {
            let expected = format!("at least {min}, a multiple of 8");
            return Err(Damage::new(OPENING, name, 0, "file length", len, expected).into());
        }
        let view = View::of(file, len).map_err(io)?;
        Ok(Self { name, path, len, view })
    }

    pub(super) fn piece(&self, offset: u64, len: u64) -> Result<Option<Piece<'_>>> {
        self.view.piece(offset, len).map_err(|source| Error::io(OPENING, &self.path, source))
    }

    pub(super) fn header(&self, id: ArchiveId, store: [u8; 16]) -> Result<ArchiveHeader> {
        let piece = self.piece(0, ARCHIVE_HEADER_LEN as u64)?;
        let bytes = piece.as_deref().unwrap_or_default();
        let header = ArchiveHeader::decode(bytes).map_err(|error| {
            if error.field == FORMAT_VERSION_FIELD {
                let found = header_version(bytes).unwrap_or(0);
                return Error::Version {
                    file: self.path.clone(),
                    found,
                    supported: ARCHIVE_VERSION,
                };
            }
            error.at(OPENING, &self.name, 0).into()
        })?;
        let foreign = |reason: String| Error::Foreign { path: self.path.clone(), reason };
        if header.store != store {
            return Err(foreign("an archive of another store".into()));
        }
        if header.id != id {
            return Err(foreign(format!("holds archive {}", header.id)));
        }
        Ok(header)
    }

    pub(super) fn footer(&self, header: &ArchiveHeader) -> Result<ArchiveFooter> {
        let offset = self.len - ARCHIVE_FOOTER_LEN as u64;
        let piece = self.piece(offset, ARCHIVE_FOOTER_LEN as u64)?;
        ArchiveFooter::decode(piece.as_deref().unwrap_or_default(), header, offset)
            .map_err(|error| error.at(OPENING, &self.name, offset).into())
    }

    /// Verifies a region and decodes it; what does not hold is damage at the region's place, what
    /// cannot be read is an error.
    pub(super) fn region<T>(
        &self,
        field: &'static str,
        region: &Region,
        nonce: u64,
        decode: impl FnOnce(&[u8]) -> Decoded<T>,
    ) -> Result<Result<T, Damage>> {
        let piece = self.piece(region.offset, region.len)?;
        let decoded = region.verified(field, piece.as_deref(), nonce).and_then(decode);
        Ok(decoded.map_err(|error| error.at(OPENING, &self.name, region.offset)))
    }
}
