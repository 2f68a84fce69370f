//! Makes the dictionary of an archive to be, and keeps it only where it pays.
//! Knows records as block bytes; knows nothing of files, nor how the content is chosen.

use zstd::bulk::Compressor;

use crate::cold::ColdRecord;
use crate::cold::builder::{BLOCK_LEN_TARGET, INLINE_VALUE_LEN_MAX};
use crate::cold::cover::most_covering;
use crate::format::block::{BlockWriter, Entry, EntryValue, put_sort_key};
use crate::format::dictionary::content_only;
use crate::limits::DICTIONARY_LEN_MAX;

/// Most sampled bytes that are kept: about a hundred times a dictionary.
const SAMPLE_LEN_MAX: u64 = 100 * DICTIONARY_LEN_MAX as u64;
/// Fewer sampled bytes than this make none.
const SAMPLE_LEN_MIN: usize = 128 << 10;
/// One sampled block in so many is held out to judge the dictionary.
const HELD_OUT: u64 = 6;

/// Collects a uniform sample of the blocks that an archive will have.
///
/// Feed it all records in order, then `finish`. A block that is not sampled is only counted.
/// Memory: at most 2 MiB and one block.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Records whose bytes are expected in all.
    expected_len: u64,
    sample_max: u64,
    created_ms: u64,
    random: u64,
    writer: BlockWriter,
    /// Bytes of the current block, and whether it is sampled.
    block_len: usize,
    sampled: bool,
    seen_len: u64,
    kept_len: u64,
    kept_count: u64,
    /// What the dictionary is made of, and the blocks that judge it.
    sample: Vec<u8>,
    held_out: Vec<Vec<u8>>,
    sort_key: Vec<u8>,
}

impl Sampler {
    /// `expected_len`: about how many bytes of keys and values will come. `random`: any number.
    /// `sample_max`: bytes that are kept at most.
    pub(crate) fn new(expected_len: u64, sample_max: u64, created_ms: u64, random: u64) -> Self {
        let mut sampler = Self {
            expected_len,
            sample_max: sample_max.min(SAMPLE_LEN_MAX),
            created_ms,
            random,
            writer: BlockWriter::new(created_ms),
            block_len: 0,
            sampled: false,
            seen_len: 0,
            kept_len: 0,
            kept_count: 0,
            sample: Vec::new(),
            held_out: Vec::new(),
            sort_key: Vec::new(),
        };
        sampler.sampled = sampler.draw();
        sampler
    }

    /// Whether the next block is part of the sample.
    fn draw(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let drawn = (mixed ^ mixed >> 31) % self.expected_len.max(1);
        drawn < self.sample_max && self.kept_len < self.sample_max
    }

    pub(crate) fn add(&mut self, record: &ColdRecord<'_>) {
        if record.value.len() > INLINE_VALUE_LEN_MAX {
            return;
        }
        let body_len = record.key.len() + record.value.len();
        self.seen_len = self.seen_len.saturating_add(body_len as u64);
        self.block_len = self.block_len.saturating_add(body_len);
        if self.sampled {
            self.sort_key.clear();
            put_sort_key(&mut self.sort_key, record.incarnation, record.key);
            let entry = Entry {
                seq: record.seq,
                deadline_ms: record.deadline_ms,
                body_crc: record.body_crc,
                value: EntryValue::Inline(record.value),
            };
            self.writer.push(&self.sort_key, &entry);
        }
        if self.block_len >= BLOCK_LEN_TARGET {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        if self.writer.count() > 0 {
            let bytes = self.writer.finish();
            self.kept_len = self.kept_len.saturating_add(bytes.len() as u64);
            if self.kept_count.is_multiple_of(HELD_OUT) {
                self.held_out.push(bytes.to_vec());
            } else {
                self.sample.extend_from_slice(bytes);
            }
            self.kept_count += 1;
            self.writer = BlockWriter::new(self.created_ms);
        }
        self.block_len = 0;
        self.sampled = self.draw();
    }

    /// The dictionary for all that was seen, if the archive is expected to be 5 % smaller with it,
    /// the dictionary itself included.
    pub(crate) fn finish(mut self, level: i32) -> Option<Vec<u8>> {
        self.end_block();
        if self.sample.len() < SAMPLE_LEN_MIN {
            return None;
        }
        let dictionary = content_only(most_covering(&self.sample, DICTIONARY_LEN_MAX))?;
        let raw_len: usize = self.held_out.iter().map(Vec::len).sum();
        let without = stored_len(&self.held_out, &[], level)?;
        let with = stored_len(&self.held_out, &dictionary, level)?;
        let whole =
            |sample: u64| u128::from(sample) * u128::from(self.seen_len) / (raw_len as u128).max(1);
        let with = whole(with) + dictionary.len() as u128;
        (with * 100 <= whole(without) * 95).then_some(dictionary)
    }
}

/// What the blocks would take in an archive.
fn stored_len(blocks: &[Vec<u8>], dictionary: &[u8], level: i32) -> Option<u64> {
    let mut compressor = Compressor::with_dictionary(level, dictionary).ok()?;
    let mut total = 0;
    for block in blocks {
        total += compressor.compress(block).ok()?.len().min(block.len()) as u64;
    }
    Some(total)
}
