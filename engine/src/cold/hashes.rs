//! The hashes of an archive that is being written, for its filter: kept in memory up to a bound,
//! and beyond it read again from the blocks that are in the file, some partitions at a time.
//! Knows blocks and hashes; knows nothing of what follows the blocks.

use std::ops::Range;

use zstd::zstd_safe::DDict;

use crate::cold::decode::{prepare_dictionary, with_block};
use crate::cold::filter::FilterBuilder;
use crate::format::block::{BLOCK_HEADER_LEN, Block, BlockHeader, split_sort_key};
use crate::format::block_index::IndexWriter;
use crate::format::cursor::{Decoded, FieldError, Fields};
use crate::format::filter::partition_of;
use crate::hash::HashSeed;
use crate::limits::BLOCK_LEN_MAX;
use crate::vfs::File;

/// The hashes of all records so far, unless they are more than `most`.
#[derive(Debug)]
pub(crate) struct Hashes {
    kept: Vec<u64>,
    most: usize,
    count: usize,
}

/// The blocks that were written.
pub(crate) struct Written<'w> {
    pub file: &'w dyn File,
    pub nonce: u64,
    pub created_ms: u64,
    pub seed: HashSeed,
    pub dictionary: &'w [u8],
    pub index: &'w IndexWriter,
}

impl Hashes {
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most, count: 0 }
    }

    pub(crate) fn push(&mut self, hash: u64) {
        self.count += 1;
        if self.count <= self.most {
            self.kept.push(hash);
        } else {
            self.kept = Vec::new();
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The region of the filter over all of them.
    pub(crate) fn into_filter(mut self, written: &Written<'_>) -> Decoded<Vec<u8>> {
        let mut filter = FilterBuilder::new(u32::try_from(self.count).unwrap_or(u32::MAX));
        if self.count <= self.most {
            filter.add(&mut self.kept, filter.partition_count());
            return Ok(filter.finish());
        }
        let dictionary = prepare_dictionary(written.dictionary)?;
        while let Some(partitions) = filter.next_partitions(self.most) {
            let until = partitions.end;
            let count = filter.partition_count();
            written.collect(dictionary.as_ref(), count, &partitions, &mut self.kept)?;
            filter.add(&mut self.kept, until);
        }
        Ok(filter.finish())
    }
}

impl Written<'_> {
    /// Reads the keys of all blocks; `hashes` has those of these partitions then.
    fn collect(
        &self,
        dictionary: Option<&DDict<'static>>,
        partition_count: u32,
        partitions: &Range<u32>,
        hashes: &mut Vec<u64>,
    ) -> Decoded<()> {
        hashes.clear();
        let partitions = partitions.start as usize..partitions.end as usize;
        let mut bytes = Vec::new();
        for offset in self.index.offsets() {
            let (header, payload) = self.read(offset, &mut bytes)?;
            with_block(&header, payload, dictionary, |raw| {
                self.each_hash(raw, header.record_count, |hash| {
                    if partitions.contains(&partition_of(hash, partition_count)) {
                        hashes.push(hash);
                    }
                })
            })??;
        }
        Ok(())
    }

    fn each_hash(&self, raw: &[u8], records: u32, mut each: impl FnMut(u64)) -> Decoded<()> {
        let block = Block::decode(raw, records, self.created_ms)?;
        for group in 0..block.group_count() {
            let mut walk = block.group(group)?;
            while walk.next()?.is_some() {
                let (incarnation, key) = split_sort_key(walk.key())?;
                each(self.seed.hash(incarnation, key).0);
            }
        }
        Ok(())
    }

    fn read<'b>(&self, offset: u64, bytes: &'b mut Vec<u8>) -> Decoded<(BlockHeader, &'b [u8])> {
        let failed = |error| FieldError::new("block", error, "what was written");
        bytes.resize(BLOCK_HEADER_LEN, 0);
        self.file.read_exact_at(bytes, offset).map_err(failed)?;
        let mut fields = Fields::new(bytes);
        fields.u32("block checksum")?;
        let stored_len = fields.u32_at_most("block stored length", BLOCK_LEN_MAX as u64)?;
        bytes.resize(BLOCK_HEADER_LEN + stored_len as usize, 0);
        self.file.read_exact_at(bytes, offset).map_err(failed)?;
        BlockHeader::decode(bytes, self.nonce, offset)
    }
}
