//! One file of the source, mapped as long as it is; one that cannot be read whole is held in
//! memory, with zeros where nothing comes back.
//! Knows bytes and what the file is taken for; knows nothing of what they say.

use std::io;
use std::sync::Arc;

use crate::error::Damage;
use crate::format::cursor::FieldError;
use crate::manifest::FileState;
use crate::vfs::File;
use crate::vfs::map::Map;

pub(super) const DOING: &str = "salvage";
/// Bytes that are read at a time, to see whether a file can be read.
const PIECE_LEN: usize = 1 << 20;
/// Bytes that are given up together around a place that cannot be read.
const BLOCK_LEN: usize = 4096;

/// Where the first bytes are that did not come back, and how many did not.
type Lost = (u64, u64);

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

    /// Reads the first `len` bytes of a file, once, before anything maps them: where the device
    /// fails a map would end the process. Answers, besides the bytes, where the first that did not
    /// come back are, and how many.
    pub(crate) fn read(file: &dyn File, len: u64) -> io::Result<(Arc<Map>, Option<Lost>)> {
        let mut buffer = vec![0; PIECE_LEN];
        let mut starts = (0..len).step_by(PIECE_LEN);
        let whole = starts.all(|at| {
            let rest = usize::try_from(len - at).unwrap_or(PIECE_LEN).min(PIECE_LEN);
            file.read_exact_at(buffer.get_mut(..rest).unwrap_or_default(), at).is_ok()
        });
        if whole {
            return Ok((file.map(len, len)?, None));
        }
        let mut lost: Option<Lost> = None;
        let map = Map::filled(len, len, None, |bytes| {
            for (at, block) in (0..).step_by(BLOCK_LEN).zip(bytes.chunks_mut(BLOCK_LEN)) {
                if file.read_exact_at(block, at).is_err() {
                    // What was read of it before the failure is no more trusted than the rest.
                    block.fill(0);
                    let (first, count) = lost.unwrap_or((at, 0));
                    lost = Some((first, count + block.len() as u64));
                }
            }
            Ok(())
        })?;
        Ok((map, lost))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of ones whose third block the device does not give back.
    #[derive(Debug)]
    struct Failing;

    impl File for Failing {
        fn len(&self) -> io::Result<u64> {
            Ok(5 * BLOCK_LEN as u64)
        }

        fn allocated_len(&self) -> io::Result<u64> {
            self.len()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            buf.fill(1);
            let bad = 2 * BLOCK_LEN as u64..3 * BLOCK_LEN as u64;
            if offset < bad.end && offset + buf.len() as u64 > bad.start {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(())
        }

        fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }

        fn allocate(&self, _from: u64, _to: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }

        fn punch_to_end(&self, _from: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn sync_range(&self, _map: &Map, _from: u64, _to: u64) -> io::Result<()> {
            Ok(())
        }

        fn map(&self, _capacity: u64, _published: u64) -> io::Result<Arc<Map>> {
            panic!("a file that cannot be read is not mapped")
        }
    }

    #[test]
    fn what_the_device_does_not_give_back_is_zeros_and_is_told() {
        let (map, lost) = Image::read(&Failing, 5 * BLOCK_LEN as u64 - 7).unwrap();
        assert_eq!(lost, Some((2 * BLOCK_LEN as u64, BLOCK_LEN as u64)));
        let bytes = map.slice(0..5 * BLOCK_LEN - 7).unwrap();
        for (at, &byte) in bytes.iter().enumerate() {
            assert_eq!(byte, u8::from(at / BLOCK_LEN != 2), "byte {at}");
        }
    }
}
