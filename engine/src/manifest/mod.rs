//! The file set: which files exist and what each is. The only mutable truth about them.
//! Knows numbers and states; knows nothing of what the files hold.

pub(crate) mod log;

use std::collections::BTreeMap;

use crate::format::cursor::{Decoded, FieldError};
use crate::format::manifest::{KeyspaceFacts, Op, StoreFacts};
use crate::format::segment::SegmentKind;
use crate::ids::Seq;

/// What the manifest says of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedFacts {
    pub kind: SegmentKind,
    pub len: u64,
    pub first_seq: Seq,
    pub last_seq: Seq,
    pub trailer_crc: u32,
}

/// The life of a file, in order: (draft or open) -> (sealed or listed) -> doomed -> gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileState {
    /// A journal or attached segment that may hold records.
    OpenSegment(SegmentKind),
    /// A survivor segment that does not count yet.
    DraftSegment,
    SealedSegment(SealedFacts),
    DraftArchive,
    Archive {
        len: u64,
    },
    DraftBits,
    Bits {
        len: u64,
    },
    DraftImage,
    /// Counts until any other file, or a keyspace, changes.
    Image {
        len: u64,
        crc: u32,
    },
    /// Does not count any more; its unlink was not seen yet. The name depends on what it was.
    DoomedSegment,
    DoomedArchive,
    DoomedBits,
    DoomedImage,
}

impl FileState {
    fn doomed(self) -> Self {
        match self {
            Self::OpenSegment(_)
            | Self::DraftSegment
            | Self::SealedSegment(_)
            | Self::DoomedSegment => Self::DoomedSegment,
            Self::DraftArchive | Self::Archive { .. } | Self::DoomedArchive => Self::DoomedArchive,
            Self::DraftBits | Self::Bits { .. } | Self::DoomedBits => Self::DoomedBits,
            Self::DraftImage | Self::Image { .. } | Self::DoomedImage => Self::DoomedImage,
        }
    }

    /// Whether the file lies in the archive directory.
    pub(crate) fn is_archive(self) -> bool {
        self.doomed() == Self::DoomedArchive
    }

    /// The name of the file with this number.
    pub(crate) fn name(self, id: u32) -> String {
        let ending = match self.doomed() {
            Self::DoomedArchive => "arc",
            Self::DoomedBits => "bit",
            Self::DoomedImage => "idx",
            _ => "seg",
        };
        format!("{id:010}.{ending}")
    }
}

/// Everything that the edits so far add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSet {
    pub facts: StoreFacts,
    pub files: BTreeMap<u32, FileState>,
    pub keyspaces: BTreeMap<String, KeyspaceFacts>,
    pub next_file: u32,
    pub next_incarnation: u32,
    /// Where the unsealed journal goes on.
    pub journal_at: Seq,
    /// A durable watermark: what a store that was closed in order does not lack.
    pub durable_at: Seq,
    pub clock_ms: u64,
}

impl FileSet {
    pub(crate) fn new(facts: StoreFacts) -> Self {
        Self {
            facts,
            files: BTreeMap::new(),
            keyspaces: BTreeMap::new(),
            next_file: 1,
            next_incarnation: 1,
            journal_at: Seq(1),
            durable_at: Seq::ZERO,
            clock_ms: 0,
        }
    }

    /// Applies one edit; an op that cannot follow what came before is damage.
    pub(crate) fn apply(&mut self, ops: &[Op]) -> Decoded<()> {
        ops.iter().try_for_each(|op| self.apply_op(op))
    }

    fn apply_op(&mut self, op: &Op) -> Decoded<()> {
        if self.changes_store(op) {
            let listed = self.files.values_mut().filter(|s| matches!(s, FileState::Image { .. }));
            listed.for_each(|state| *state = state.doomed());
        }
        match op {
            Op::Facts(facts) => {
                if *facts != self.facts {
                    return Err(FieldError::new("facts", "another store", "this store"));
                }
            }
            Op::Counters { next_file, next_incarnation } => {
                self.next_file = self.next_file.max(*next_file);
                self.next_incarnation = self.next_incarnation.max(*next_incarnation);
            }
            Op::SetKeyspace(facts) => {
                self.next_incarnation =
                    self.next_incarnation.max(facts.incarnation.saturating_add(1));
                self.keyspaces.insert(facts.name.clone(), facts.clone());
            }
            Op::DropKeyspace { name, incarnation, .. } => {
                if self.keyspaces.get(name).is_some_and(|ks| ks.incarnation <= *incarnation) {
                    self.keyspaces.remove(name);
                }
            }
            Op::JournalAt { seq } => self.journal_at = self.journal_at.max(Seq(*seq)),
            Op::DurableAt { seq } => self.durable_at = self.durable_at.max(Seq(*seq)),
            Op::ClockAt { ms } => self.clock_ms = self.clock_ms.max(*ms),
            file => self.apply_file(file)?,
        }
        Ok(())
    }

    /// Whether an image made before this op says something else than the store after it.
    fn changes_store(&self, op: &Op) -> bool {
        match op {
            Op::OpenSegment { .. }
            | Op::SealSegment { .. }
            | Op::ListArchive { .. }
            | Op::ListBits { .. }
            | Op::ListImage { .. }
            | Op::SetKeyspace(_)
            | Op::DropKeyspace { .. }
            | Op::JournalAt { .. } => true,
            Op::Doom { id } => {
                let counts = |state: &FileState| {
                    matches!(state, FileState::SealedSegment(_) | FileState::Archive { .. })
                };
                self.files.get(id).is_some_and(counts)
            }
            _ => false,
        }
    }

    /// The index image that says what the store says.
    pub(crate) fn image(&self) -> Option<(u32, u64, u32)> {
        self.files.iter().find_map(|(&id, state)| match *state {
            FileState::Image { len, crc } => Some((id, len, crc)),
            _ => None,
        })
    }

    fn apply_file(&mut self, op: &Op) -> Decoded<()> {
        let (id, state) = match *op {
            Op::OpenSegment { id, kind } => (id, FileState::OpenSegment(segment_kind(kind)?)),
            Op::DraftSegment { id } => (id, FileState::DraftSegment),
            Op::SealSegment { id, kind, len, first_seq, last_seq, trailer_crc } => {
                let (first_seq, last_seq) = (Seq(first_seq), Seq(last_seq));
                let kind = segment_kind(kind)?;
                let facts = SealedFacts { kind, len, first_seq, last_seq, trailer_crc };
                (id, FileState::SealedSegment(facts))
            }
            Op::DraftArchive { id } => (id, FileState::DraftArchive),
            Op::ListArchive { id, len } => (id, FileState::Archive { len }),
            Op::DraftBits { id } => (id, FileState::DraftBits),
            Op::ListBits { id, len } => (id, FileState::Bits { len }),
            Op::DraftImage { id } => (id, FileState::DraftImage),
            Op::ListImage { id, len, crc } => (id, FileState::Image { len, crc }),
            Op::Doom { id } => {
                let state = self.state(id)?;
                (id, state.doomed())
            }
            Op::Gone { id } => {
                self.state(id)?;
                self.files.remove(&id);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.next_file = self.next_file.max(id.saturating_add(1));
        self.files.insert(id, state);
        Ok(())
    }

    fn state(&self, id: u32) -> Decoded<FileState> {
        let state = self.files.get(&id).copied();
        state.ok_or_else(|| FieldError::new("file", id, "a file that an edit named before"))
    }

    /// The whole set as one edit: what a new manifest file begins with.
    pub(crate) fn snapshot(&self) -> Vec<Op> {
        let (next_file, next_incarnation) = (self.next_file, self.next_incarnation);
        let mut ops = vec![
            Op::Facts(self.facts.clone()),
            Op::Counters { next_file, next_incarnation },
            Op::JournalAt { seq: self.journal_at.0 },
            Op::ClockAt { ms: self.clock_ms },
        ];
        if self.durable_at > Seq::ZERO {
            ops.push(Op::DurableAt { seq: self.durable_at.0 });
        }
        ops.extend(self.keyspaces.values().cloned().map(Op::SetKeyspace));
        for (&id, &state) in &self.files {
            match state {
                FileState::OpenSegment(kind) => {
                    ops.push(Op::OpenSegment { id, kind: kind as u8 });
                }
                FileState::DraftSegment => ops.push(Op::DraftSegment { id }),
                FileState::SealedSegment(facts) => ops.push(seal_op(id, &facts)),
                FileState::DraftArchive => ops.push(Op::DraftArchive { id }),
                FileState::Archive { len } => ops.push(Op::ListArchive { id, len }),
                FileState::DraftBits => ops.push(Op::DraftBits { id }),
                FileState::Bits { len } => ops.push(Op::ListBits { id, len }),
                FileState::DraftImage => ops.push(Op::DraftImage { id }),
                FileState::Image { .. } => {}
                FileState::DoomedImage => ops.extend([Op::DraftImage { id }, Op::Doom { id }]),
                FileState::DoomedSegment => ops.extend([Op::DraftSegment { id }, Op::Doom { id }]),
                FileState::DoomedArchive => ops.extend([Op::DraftArchive { id }, Op::Doom { id }]),
                FileState::DoomedBits => ops.extend([Op::DraftBits { id }, Op::Doom { id }]),
            }
        }
        // Behind everything else: it says what all of that says.
        ops.extend(self.image().map(|(id, len, crc)| Op::ListImage { id, len, crc }));
        ops
    }

    /// The current file of dead bitmaps.
    pub(crate) fn bits(&self) -> Option<u32> {
        let listed = |(id, state): (&u32, &FileState)| {
            matches!(state, FileState::Bits { .. }).then_some(*id)
        };
        self.files.iter().filter_map(listed).next_back()
    }
}

fn segment_kind(kind: u8) -> Decoded<SegmentKind> {
    SegmentKind::from_u8(kind).ok_or_else(|| FieldError::new("segment kind", kind, "1 to 3"))
}

/// The op that seals a segment with these facts.
pub(crate) fn seal_op(id: u32, facts: &SealedFacts) -> Op {
    Op::SealSegment {
        id,
        kind: facts.kind as u8,
        len: facts.len,
        first_seq: facts.first_seq.0,
        last_seq: facts.last_seq.0,
        trailer_crc: facts.trailer_crc,
    }
}

#[cfg(test)]
mod set_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> StoreFacts {
        StoreFacts { store: [1; 16], hash_seed: [2; 16], created_ms: 3, archive_dir: None }
    }

    fn keyspace(incarnation: u32) -> KeyspaceFacts {
        KeyspaceFacts {
            name: "a".into(),
            incarnation,
            seq: 0,
            volatile: false,
            unordered: false,
            default_ttl_ms: 0,
            compression_level: 3,
        }
    }

    #[test]
    fn a_snapshot_says_the_same_as_the_edits_that_led_to_it() {
        let mut set = FileSet::new(facts());
        let sealed = SealedFacts {
            kind: SegmentKind::Journal,
            len: 9,
            first_seq: Seq(1),
            last_seq: Seq(4),
            trailer_crc: 7,
        };
        set.apply(&[
            Op::OpenSegment { id: 1, kind: 1 },
            seal_op(1, &sealed),
            Op::DraftSegment { id: 2 },
            Op::DraftArchive { id: 3 },
            Op::ListArchive { id: 3, len: 77 },
            Op::DraftBits { id: 4 },
            Op::ListBits { id: 4, len: 60 },
            Op::DraftBits { id: 5 },
            Op::Doom { id: 2 },
            Op::SetKeyspace(keyspace(6)),
            Op::JournalAt { seq: 5 },
            Op::ClockAt { ms: 1000 },
            Op::DurableAt { seq: 4 },
            Op::DraftImage { id: 6 },
            Op::ListImage { id: 6, len: 99, crc: 8 },
            Op::ClockAt { ms: 1001 },
        ])
        .unwrap();
        assert_eq!((set.next_file, set.next_incarnation, set.bits()), (7, 7, Some(4)));
        assert_eq!(set.image(), Some((6, 99, 8)));
        let mut copy = FileSet::new(facts());
        copy.apply(&set.snapshot()).unwrap();
        assert_eq!(copy, set);
        assert_eq!(set.files[&2].name(2), "0000000002.seg");
    }

    #[test]
    fn an_image_counts_until_anything_else_changes() {
        let mut set = FileSet::new(facts());
        set.apply(&[Op::DraftBits { id: 1 }, Op::ListBits { id: 1, len: 60 }]).unwrap();
        let changes = [
            Op::OpenSegment { id: 9, kind: 1 },
            Op::ListBits { id: 1, len: 70 },
            Op::SetKeyspace(keyspace(1)),
            Op::JournalAt { seq: 5 },
            Op::ListImage { id: 8, len: 1, crc: 2 },
        ];
        for change in changes {
            set.apply(&[Op::ListImage { id: 2, len: 99, crc: 8 }]).unwrap();
            set.apply(&[Op::DraftSegment { id: 5 }, Op::Doom { id: 5 }]).unwrap();
            assert_eq!(set.image(), Some((2, 99, 8)));
            set.apply(std::slice::from_ref(&change)).unwrap();
            assert_eq!(set.files[&2], FileState::DoomedImage, "{change:?}");
        }
    }

    #[test]
    fn an_edit_about_an_unknown_file_is_damage_and_an_old_drop_spares_the_newer_keyspace() {
        let mut set = FileSet::new(facts());
        assert!(set.apply(&[Op::Doom { id: 9 }]).is_err());
        assert!(set.apply(&[Op::Gone { id: 9 }]).is_err());
        set.apply(&[Op::SetKeyspace(keyspace(6))]).unwrap();
        set.apply(&[Op::DropKeyspace { name: "a".into(), incarnation: 5, seq: 1 }]).unwrap();
        assert!(set.keyspaces.contains_key("a"));
        set.apply(&[Op::DropKeyspace { name: "a".into(), incarnation: 6, seq: 2 }]).unwrap();
        assert!(set.keyspaces.is_empty());
    }
}
