//! What `compact` does to archives: few of them, and packed as well as zstd can within reason.
//! Knows when that pays; the work is merging's.

use std::sync::Arc;

use zstd::bulk::Compressor;

use crate::cold::ArchiveEntry;
use crate::error::{Error, Result};
use crate::limits::ARCHIVE_LEN_MAX;
use crate::tiers::{Maintenance, Tiers};

/// The level of zstd: the first that weighs every way to say a block (`btultra`).
const LEVEL: i32 = 15;
/// Blocks of an archive that are packed anew to see whether it pays for all.
const SAMPLE_COUNT: u32 = 16;
/// It pays when they take at most so many hundredths of what they took.
const PERCENT_MAX: u64 = 95;

const DOING: &str = "compact archives";

impl Tiers {
    /// Makes one archive of as many as fit into one, the shortest first, and packs again what was
    /// packed in haste or holds garbage.
    pub(crate) fn compact_archives(&self, maintenance: &mut Maintenance) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let mut rest = self.free_archives(&self.cold.load());
        rest.sort_by_key(|entry| entry.archive.file_len());
        while !rest.is_empty() {
            let mut len = 0;
            let fits = rest.iter().take_while(|entry| {
                len += entry.archive.file_len();
                len <= ARCHIVE_LEN_MAX
            });
            let count = fits.count().max(1);
            let group: Vec<Arc<ArchiveEntry>> = rest.drain(..count).collect();
            match self.compact_group(maintenance, &group, now_ms) {
                // What is damaged stays as it is, so that nothing sound in it is lost.
                Err(Error::Corrupt(damage)) => tracing::warn!(%damage, "an archive stays as it is"),
                other => other?,
            }
        }
        Ok(())
    }

    fn compact_group(
        &self,
        maintenance: &mut Maintenance,
        group: &[Arc<ArchiveEntry>],
        now_ms: u64,
    ) -> Result<()> {
        if let [entry] = group {
            let most = entry.archive.footer().encoded_len * PERCENT_MAX;
            if self.live_bytes_of(entry, now_ms) * 100 > most && !packs_better(entry)? {
                return Ok(());
            }
        }
        self.merge(maintenance, group, now_ms, LEVEL)
    }
}

/// Whether some blocks out of all parts of an archive take less when they are packed again.
fn packs_better(entry: &ArchiveEntry) -> Result<bool> {
    let archive = &entry.archive;
    let footer = archive.footer();
    let region = &footer.dictionary;
    let dictionary = archive.piece(region.offset, region.len)?;
    let io = |source| Error::io(DOING, archive.name(), source);
    let dictionary = dictionary.as_deref().unwrap_or_default();
    let mut compressor = Compressor::with_dictionary(LEVEL, dictionary).map_err(io)?;
    let step = (footer.block_count / SAMPLE_COUNT).max(1);
    let (mut stored, mut packed, mut block) = (0, 0, Vec::new());
    for number in (0..footer.block_count).step_by(step as usize) {
        let (_, header) = archive.read_block(number, &mut block)?;
        stored += u64::from(header.stored_len);
        packed += compressor.compress(&block).map_err(io)?.len().min(block.len()) as u64;
    }
    Ok(packed * 100 <= stored * PERCENT_MAX)
}
