//! Which records of an archive are dead: a bit a record, and the sums over them.
//! Knows ordinals and lengths; knows nothing of keys, or of why a record is dead.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::archive::Tables;
use crate::format::deadline::deadline_class_end;
use crate::ids::Incarnation;

/// A count and a sum that rise together.
#[derive(Debug, Default)]
struct Sum {
    record_count: AtomicU64,
    encoded_len: AtomicU64,
}

/// Dead records: how many, and their encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeadSum {
    pub record_count: u64,
    pub encoded_len: u64,
}

impl Sum {
    fn add(&self, encoded_len: u64) {
        self.record_count.fetch_add(1, Ordering::Relaxed);
        self.encoded_len.fetch_add(encoded_len, Ordering::Relaxed);
    }

    fn get(&self) -> DeadSum {
        DeadSum {
            record_count: self.record_count.load(Ordering::Relaxed),
            encoded_len: self.encoded_len.load(Ordering::Relaxed),
        }
    }
}

/// The dead records of one archive. Bits are only ever set. Any thread may mark and ask.
///
/// A bit is set before its bytes are added to the sums, so the sums may lag the bits for a moment.
#[derive(Debug)]
pub(crate) struct DeadBits {
    created_ms: u64,
    record_count: u32,
    words: Box<[AtomicU64]>,
    total: Sum,
    /// In the order of the archive's tables.
    incarnations: Box<[(Incarnation, Sum)]>,
    classes: Box<[((Incarnation, u64), Sum)]>,
}

impl DeadBits {
    /// No record is dead. The tables are those of the archive.
    pub(crate) fn new(tables: &Tables, record_count: u32, created_ms: u64) -> Self {
        let words = (record_count as usize).div_ceil(64);
        let incarnations = tables.incarnations.iter();
        let classes = tables.classes.iter();
        Self {
            created_ms,
            record_count,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            total: Sum::default(),
            incarnations: incarnations.map(|one| (one.incarnation, Sum::default())).collect(),
            classes: classes.map(|one| ((one.incarnation, one.end_ms), Sum::default())).collect(),
        }
    }

    pub(crate) fn is_dead(&self, ordinal: u32) -> bool {
        let word = self.words.get(ordinal as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Acquire) & 1 << (ordinal % 64) != 0)
    }

    /// Marks a record dead. Answers whether this call did it.
    pub(crate) fn mark(
        &self,
        ordinal: u32,
        incarnation: Incarnation,
        deadline_ms: u64,
        encoded_len: u64,
    ) -> bool {
        if !self.set(ordinal) {
            return false;
        }
        self.add_sums(incarnation, deadline_ms, encoded_len);
        true
    }

    /// Sets the bit alone.
    pub(crate) fn set(&self, ordinal: u32) -> bool {
        if ordinal >= self.record_count {
            return false;
        }
        let bit = 1 << (ordinal % 64);
        let word = self.words.get(ordinal as usize / 64);
        word.is_some_and(|word| word.fetch_or(bit, Ordering::AcqRel) & bit == 0)
    }

    /// Adds a record whose bit is set to the sums.
    pub(crate) fn add_sums(&self, incarnation: Incarnation, deadline_ms: u64, encoded_len: u64) {
        self.total.add(encoded_len);
        let place = self.incarnations.binary_search_by_key(&incarnation, |(one, _)| *one);
        if let Some((_, sum)) = place.ok().and_then(|at| self.incarnations.get(at)) {
            sum.add(encoded_len);
        }
        let class = (incarnation, deadline_class_end(self.created_ms, deadline_ms));
        let place = self.classes.binary_search_by_key(&class, |(one, _)| *one);
        if let Some((_, sum)) = place.ok().and_then(|at| self.classes.get(at)) {
            sum.add(encoded_len);
        }
    }

    /// Over the whole archive.
    pub(crate) fn total(&self) -> DeadSum {
        self.total.get()
    }

    pub(crate) fn of_incarnation(&self, incarnation: Incarnation) -> DeadSum {
        let place = self.incarnations.binary_search_by_key(&incarnation, |(one, _)| *one);
        let sum = place.ok().and_then(|at| self.incarnations.get(at));
        sum.map(|(_, sum)| sum.get()).unwrap_or_default()
    }

    /// Of the class in this row of the archive's table.
    pub(crate) fn of_class(&self, row: usize) -> DeadSum {
        self.classes.get(row).map(|(_, sum)| sum.get()).unwrap_or_default()
    }

    /// The bits as they are stored: bit `i` is bit `i % 8` of byte `i / 8`.
    pub(crate) fn to_bits(&self) -> Vec<u8> {
        let words = self.words.iter().map(|word| word.load(Ordering::Acquire).to_le_bytes());
        let mut bits: Vec<u8> = words.flatten().collect();
        bits.truncate((self.record_count as usize).div_ceil(8));
        bits
    }

    /// Anonymous memory that the bits and sums take.
    pub(crate) fn charged_len(&self) -> u64 {
        let sums = size_of_val(&*self.incarnations) + size_of_val(&*self.classes);
        (size_of::<Self>() + size_of_val(&*self.words) + sums) as u64
    }
}
