//! The unsealed journal of the source: where its tail is cut, and what is missing before that.
//! The rule is recovery's: above the highest durable watermark anywhere, the first record that is
//! missing ends the log; below it, what is missing is damage.

use std::collections::HashSet;

use crate::format::cursor::FieldError;
use crate::format::record::{RecordHeader, RecordKind};
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::hash::HashSeed;
use crate::ids::Seq;
use crate::manifest::FileState;
use crate::repair::Find;
use crate::repair::image::Image;
use crate::repair::log::{Place, clear_of, lost_body, sound_of, walk_places};

/// One sound record of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Unit {
    seq: u64,
    /// The next record belongs to the same batch.
    more: bool,
}

/// What all unsealed segments together say.
#[derive(Debug, Default)]
pub(crate) struct JournalScan {
    units: Vec<Unit>,
    watermark: u64,
    /// Ranges of records that are missing for other reasons.
    gaps: Vec<(Seq, Seq)>,
    /// An unsealed segment is missing: nobody knows how far the journal went.
    headless: bool,
    /// Records from here on do not count.
    cut: u64,
}

impl JournalScan {
    /// Nothing was seen yet; everything up to this number was durable.
    pub(super) fn of(durable_at: Seq) -> Self {
        Self { watermark: durable_at.0, ..Self::default() }
    }

    /// A file that the manifest lists cannot be read.
    pub(super) fn note_missing(&mut self, state: FileState) {
        match state {
            FileState::SealedSegment(facts) => self.gaps.push((facts.first_seq, facts.last_seq)),
            FileState::OpenSegment(_) => self.headless = true,
            _ => {}
        }
    }

    /// Nothing says any more which records had been superseded.
    pub(super) fn doubt_all(&mut self) {
        self.gaps.push((Seq::ZERO, Seq(u64::MAX)));
    }

    /// Takes in one unsealed segment.
    pub(super) fn add(&mut self, image: &Image, kind: SegmentKind) {
        let Ok(header) = SegmentHeader::decode(image.rest(0)) else {
            self.headless = true;
            return;
        };
        walk_places(image, header.nonce, image.len, &mut |place| match place {
            Place::Sound(_, record) => {
                self.watermark = self.watermark.max(record.header.watermark().0);
                // An attach record has the number of the last record that it names.
                if record.header.kind != RecordKind::Attach && kind != SegmentKind::Survivor {
                    self.units.push(unit(&record.header));
                }
            }
            Place::Broken(_, record) => {
                self.watermark = self.watermark.max(record.header.watermark().0);
            }
            Place::Hole(..) => {}
        });
    }

    /// Settles the cut; answers the ranges of records that are missing before it.
    pub(super) fn judge(&mut self, journal_at: Seq) -> Vec<(Seq, Seq)> {
        let mut gaps = std::mem::take(&mut self.gaps);
        let mut units = std::mem::take(&mut self.units);
        units.sort_unstable();
        let first = units.first().map_or(1, |unit| unit.seq);
        let mut expected = if journal_at == Seq::ZERO { first } else { journal_at.0 };
        let mut batch: Option<u64> = None;
        for unit in units {
            if unit.seq < expected {
                continue;
            }
            if unit.seq > expected {
                if expected > self.watermark {
                    break;
                }
                gaps.push((Seq(expected), Seq(unit.seq - 1)));
                batch = None;
            }
            expected = unit.seq.saturating_add(1);
            batch = if unit.more { batch.or(Some(unit.seq)) } else { None };
        }
        if expected <= self.watermark {
            gaps.push((Seq(expected), Seq(self.watermark)));
            expected = self.watermark.saturating_add(1);
        }
        if self.headless {
            gaps.push((Seq(expected), Seq(u64::MAX)));
        }
        // A batch whose end was cut off counts not at all.
        self.cut = batch.unwrap_or(expected);
        gaps
    }

    /// Hands over what one unsealed segment holds before the cut.
    pub(super) fn walk(
        &self,
        image: &Image,
        kind: SegmentKind,
        seed: Option<&HashSeed>,
        each: &mut dyn FnMut(Find<'_>),
    ) {
        let header = match SegmentHeader::decode(image.rest(0)) {
            Ok(header) => header,
            Err(error) => return each(Find::Damage(image.damage(0, error))),
        };
        let mut seen = HashSet::new();
        walk_places(image, header.nonce, image.len, &mut |place| match place {
            Place::Sound(_, record) => {
                let counts = record.header.seq.0 < self.cut || kind == SegmentKind::Survivor;
                if !counts
                    || record.header.kind != RecordKind::Attach && !seen.insert(record.header.seq)
                {
                    return;
                }
                match record.header.kind {
                    RecordKind::Put | RecordKind::Tombstone => each(Find::Sound(sound_of(&record))),
                    RecordKind::Clear => {
                        if let Some(clear) = clear_of(&record) {
                            each(clear);
                        }
                    }
                    RecordKind::Attach => {}
                }
            }
            Place::Broken(offset, record) if record.header.seq.0 < self.cut => {
                let error = FieldError::new("body checksum", "another", "the header's");
                each(Find::Damage(image.damage(offset, error)));
                if let Some(lost) = lost_body(&record, seed) {
                    each(lost);
                }
            }
            Place::Broken(..) | Place::Hole(..) => {}
        });
    }
}

fn unit(header: &RecordHeader) -> Unit {
    Unit { seq: header.seq.0, more: header.more }
}
