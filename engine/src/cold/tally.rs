//! The sums over an archive's records: counted while it is written, and again to verify it.
//! Knows lengths, deadlines and incarnations; knows nothing of files.

use std::collections::BTreeMap;

use crate::cold::ColdRecord;
use crate::format::archive::{ArchiveFooter, ClassSum, IncarnationSum, Tables};
use crate::format::deadline::deadline_class_end;
use crate::ids::Incarnation;

/// Counts records one by one.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    created_ms: u64,
    sums: ArchiveFooter,
    incarnations: BTreeMap<Incarnation, IncarnationSum>,
    classes: BTreeMap<(Incarnation, u64), ClassSum>,
}

impl Tally {
    pub(crate) fn new(created_ms: u64) -> Self {
        Self { created_ms, ..Self::default() }
    }

    pub(crate) fn record_count(&self) -> u32 {
        self.sums.record_count
    }

    /// Bytes that the tables will take.
    pub(crate) fn tables_len(&self) -> usize {
        8 + 24 * (self.incarnations.len() + self.classes.len())
    }

    pub(crate) fn add(&mut self, record: &ColdRecord<'_>) {
        let encoded_len = record.encoded_len();
        let body_len = (record.key.len() + record.value.len()) as u64;
        let incarnation = record.incarnation;
        let first = self.sums.record_count == 0;
        let sums = &mut self.sums;
        sums.record_count += 1;
        sums.encoded_len += encoded_len;
        sums.body_len += body_len;
        sums.seq_max = sums.seq_max.max(record.seq.0);
        sums.seq_min = if first { record.seq.0 } else { sums.seq_min.min(record.seq.0) };
        let empty = IncarnationSum { incarnation, record_count: 0, encoded_len: 0, body_len: 0 };
        let sum = self.incarnations.entry(incarnation).or_insert(empty);
        sum.record_count += 1;
        sum.encoded_len += encoded_len;
        sum.body_len += body_len;
        self.add_deadline(incarnation, record.deadline_ms, encoded_len);
    }

    fn add_deadline(&mut self, incarnation: Incarnation, deadline_ms: u64, encoded_len: u64) {
        let sums = &mut self.sums;
        if deadline_ms == 0 {
            sums.without_deadline_count += 1;
            return;
        }
        let least = sums.deadline_min_ms;
        sums.deadline_min_ms = if least == 0 { deadline_ms } else { least.min(deadline_ms) };
        sums.deadline_max_ms = sums.deadline_max_ms.max(deadline_ms);
        let end_ms = deadline_class_end(self.created_ms, deadline_ms);
        let empty = ClassSum { incarnation, record_count: 0, end_ms, encoded_len: 0 };
        let class = self.classes.entry((incarnation, end_ms)).or_insert(empty);
        class.record_count += 1;
        class.encoded_len += encoded_len;
    }

    /// A footer with the sums over records filled in and nothing else.
    pub(crate) fn footer(&self) -> ArchiveFooter {
        self.sums
    }

    pub(crate) fn tables(&self) -> Tables {
        Tables {
            incarnations: self.incarnations.values().copied().collect(),
            classes: self.classes.values().copied().collect(),
        }
    }
}
