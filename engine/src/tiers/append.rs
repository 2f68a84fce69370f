//! The tail of the log: the active segment, those that wait to be sealed, and the accounts.
//! Everything here stands behind the append lock. Knows nothing of readers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::canary::{Canary, planted};
use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::ids::{Incarnation, Location, SegmentId, Seq, Slot};
use crate::limits::{SEGMENT_LEN_MAX, SEGMENT_LEN_MIN};
use crate::manifest::FileState;
use crate::options::Options;
use crate::tiers::Tiers;
use crate::vfs::os;
use crate::warm::account::{SegmentAccount, Weight};
use crate::warm::active::SegmentWriter;
use crate::warm::flush::DirtyRange;
use crate::warm::index::point::IndexWriter;
use crate::warm::table::SegmentTable;
use crate::warm::versions::OldPlace;

/// State behind the append lock.
#[derive(Debug)]
pub(crate) struct Append {
    pub index: IndexWriter,
    pub active: SegmentWriter,
    /// The next journal segments, made ready by a worker.
    pub spares: VecDeque<SegmentWriter>,
    /// Full journal segments, each with its last `seq`, in order.
    pub closed: VecDeque<(SegmentWriter, Seq)>,
    /// Attached segments, each with the `seq` of its attach record.
    pub attached: VecDeque<(SegmentWriter, Seq)>,
    /// Ended incarnations that the manifest does not know yet.
    pub ended: VecDeque<(Seq, Op)>,
    pub table: SegmentTable,
    pub accounts: Vec<Option<SegmentAccount>>,
    pub last_seq: Seq,
    dirty: Vec<DirtyRange>,
    /// The active segment was synced, or is being synced, up to here.
    flushed_tail: u64,
    pub unflushed_bytes: u64,
    pub unflushed_since_ms: u64,
    /// When the last record was appended.
    pub written_ms: u64,
    pace: Pace,
}

/// How fast journal segments fill.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When the active segment began to take records; 0 for that of the opening.
    since_ms: u64,
    /// Bytes a second of the last full one.
    per_second: u64,
}

impl Pace {
    fn note(&mut self, len: u64, now_ms: u64) {
        let lasted = now_ms.saturating_sub(self.since_ms).max(1);
        self.per_second = if self.since_ms == 0 { 0 } else { len.saturating_mul(1000) / lasted };
        self.since_ms = now_ms;
    }

    /// Spares that are worth having beside an active segment of this length: two when it fills in
    /// about the time that making one may take while others flush.
    fn spares_wanted(&self, len: u64) -> usize {
        if self.per_second > len { 2 } else { 1 }
    }
}

impl Append {
    pub(crate) fn new(
        index: IndexWriter,
        active: SegmentWriter,
        table: SegmentTable,
        accounts: Vec<Option<SegmentAccount>>,
        last_seq: Seq,
    ) -> Self {
        let mut this = Self {
            index,
            active,
            spares: VecDeque::new(),
            closed: VecDeque::new(),
            attached: VecDeque::new(),
            ended: VecDeque::new(),
            table,
            accounts,
            last_seq,
            dirty: Vec::new(),
            flushed_tail: 0,
            unflushed_bytes: 0,
            unflushed_since_ms: 0,
            written_ms: 0,
            pace: Pace::default(),
        };
        let segment = Arc::clone(&this.active.segment);
        this.open_account(segment.slot, segment.created_ms);
        this.table.insert(segment);
        this
    }

    pub(crate) fn open_account(&mut self, slot: Slot, created_ms: u64) {
        let slot = slot.0 as usize;
        if slot >= self.accounts.len() {
            self.accounts.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.accounts.get_mut(slot) {
            *place = Some(SegmentAccount::new(created_ms));
        }
    }

    pub(crate) fn close_account(&mut self, slot: Slot) {
        if let Some(place) = self.accounts.get_mut(slot.0 as usize) {
            *place = None;
        }
    }

    pub(crate) fn account(&mut self, slot: Slot) -> Option<&mut SegmentAccount> {
        self.accounts.get_mut(slot.0 as usize)?.as_mut()
    }

    /// The newest record of a key is no longer the one at `location`.
    pub(crate) fn kill(&mut self, location: Location, weight: &Weight) {
        if let Some(account) = self.account(location.slot) {
            account.kill_at(location.offset, weight);
        }
    }

    /// The index is about to name another record than the one at `location`, or none.
    pub(crate) fn supersede(&self, location: Location) {
        if let Some(segment) = self.table.of(location) {
            segment.mark_superseded(u64::from(location.offset));
        }
    }

    /// All records of an incarnation are dead.
    pub(crate) fn clear_accounts(&mut self, incarnation: Incarnation) {
        for account in self.accounts.iter_mut().flatten() {
            account.clear(incarnation);
        }
    }

    /// A record that is dead is kept for whoever sees a moment of the past.
    pub(crate) fn pin(&mut self, location: Location, len: u64) {
        if let Some(account) = self.account(location.slot) {
            account.pin(len);
        }
    }

    /// A version that was at this place is not kept any more.
    pub(crate) fn unpin_place(&mut self, place: OldPlace) {
        let OldPlace::Warm(location) = place else { return };
        let Some(segment) = self.table.of(location) else { return };
        let Ok(record) = segment.record(u64::from(location.offset)) else { return };
        let len = record.header.encoded_len();
        if let Some(account) = self.account(location.slot) {
            account.unpin(len);
        }
    }

    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.accounts.iter().flatten().map(|account| account.pinned_bytes).sum()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.accounts.iter().flatten().map(SegmentAccount::live_bytes).sum()
    }

    pub(crate) fn note_dirty(&mut self, range: DirtyRange) {
        self.dirty.push(range);
    }

    pub(crate) fn take_dirty(&mut self) -> (Vec<DirtyRange>, Seq) {
        let mut ranges = std::mem::take(&mut self.dirty);
        ranges.extend(self.active_dirty());
        self.flushed_tail = self.active.tail();
        self.unflushed_bytes = 0;
        self.unflushed_since_ms = 0;
        (ranges, self.last_seq)
    }

    fn active_dirty(&self) -> Option<DirtyRange> {
        let (from, to) = (self.flushed_tail, self.active.tail());
        (to > from).then(|| DirtyRange { segment: Arc::clone(&self.active.segment), from, to })
    }

    /// Puts `next` in the place of the active segment, which now waits to be sealed.
    fn swap_active(&mut self, next: SegmentWriter, now_ms: u64) {
        self.pace.note(self.active.tail(), now_ms);
        self.dirty.extend(self.active_dirty());
        self.flushed_tail = 0;
        let segment = Arc::clone(&next.segment);
        self.open_account(segment.slot, segment.created_ms);
        self.table.insert(segment);
        let full = std::mem::replace(&mut self.active, next);
        self.closed.push_back((full, self.last_seq));
    }
}

/// Bytes that a new segment may hold, for a store with so many live bytes: few, so that little
/// garbage is out of reach of cleaning, but what is written in a second where more is written. A
/// segment costs four flushes to make; puts would wait for them.
pub(crate) fn segment_target(live_bytes: u64, per_second: u64, options: &Options) -> u64 {
    let most = options.segment_size.min(options.warm_budget / 8);
    let most = most.clamp(SEGMENT_LEN_MIN, SEGMENT_LEN_MAX);
    (live_bytes / 32).max(per_second.min(live_bytes / 8)).clamp(SEGMENT_LEN_MIN, most)
}

fn chunk_len(limit: u64) -> u64 {
    (limit / 16).clamp(256 << 10, 4 << 20).next_multiple_of(4096)
}

impl Tiers {
    /// Makes a segment ready for records: named in the manifest, created, header and name durable.
    pub(crate) fn create_segment(
        &self,
        kind: SegmentKind,
        slot: Slot,
        limit: u64,
    ) -> Result<SegmentWriter> {
        let id = self.manifest.next_file();
        self.commit_edit(&vec![Op::DraftSegment { id }])?;
        let nonce =
            os::random_bytes().map_err(|error| Error::io("draw nonce", self.dir.path(), error))?;
        let header = SegmentHeader {
            store: self.store,
            id: SegmentId(id),
            kind,
            created_ms: self.clock.now_ms(),
            nonce: u64::from_le_bytes(nonce),
        };
        let made = SegmentWriter::create(&*self.dir, &header, slot, limit, chunk_len(limit))
            .and_then(|writer| {
                if !planted(Canary::SkipDirSync) {
                    let synced = writer.sync().and_then(|()| {
                        let synced = self.dir.sync();
                        synced.map_err(|error| Error::io("sync directory", self.dir.path(), error))
                    });
                    synced.inspect_err(|error| self.flusher.poison(error))?;
                }
                // Only now may it hold records: an unsound header is damage from here on.
                self.commit_edit(&vec![Op::OpenSegment { id, kind: kind as u8 }])?;
                Ok(writer)
            });
        if made.is_err() {
            self.discard_file(id);
        }
        made
    }

    /// Takes a slot for a segment that is about to be made.
    pub(crate) fn take_slot(&self, append: &mut Append) -> Result<Slot> {
        append.table.free_slot().ok_or(Error::Full {
            doing: "create segment",
            what: "table of segments",
            used: self.segments.load().iter().count() as u64,
            limit: crate::limits::SEGMENT_COUNT_MAX as u64,
        })
    }

    fn next_target(&self, append: &Append) -> u64 {
        segment_target(append.live_bytes(), append.pace.per_second, &self.options)
    }

    /// A journal segment with room for at least `len` bytes of records.
    pub(crate) fn create_journal(
        &self,
        slot: Slot,
        target: u64,
        len: u64,
    ) -> Result<SegmentWriter> {
        let limit = target.max(len + 4096);
        self.create_segment(SegmentKind::Journal, slot, limit)
    }

    /// Makes the next journal segment ready, so that rolling over costs a put nothing. One thread
    /// at a time does; without `wait` another one leaves it to that. Answers whether it made one.
    pub(crate) fn make_spare(&self, wait: bool) -> Result<bool> {
        let preparing = if wait { Some(self.preparing.lock()) } else { self.preparing.try_lock() };
        let Some(_preparing) = preparing else { return Ok(false) };
        let (slot, target) = {
            let mut append = self.append.lock();
            let wanted = append.pace.spares_wanted(append.active.limit());
            let enough = append.spares.len() >= wanted || wait && !append.spares.is_empty();
            if enough || append.active.is_empty() {
                return Ok(false);
            }
            (self.take_slot(&mut append)?, self.next_target(&append))
        };
        let made = self.create_journal(slot, target, 0);
        let mut append = self.append.lock();
        match made {
            Ok(spare) => {
                append.spares.push_back(spare);
                Ok(true)
            }
            Err(error) => {
                append.table.release(slot);
                Err(error)
            }
        }
    }

    /// Allocates ahead of the puts. Answers whether there was anything to do.
    pub(crate) fn make_room_ahead(&self) -> Result<bool> {
        let _allocating = self.allocating.lock();
        let Some(room) = self.append.lock().active.room_wanted() else { return Ok(false) };
        room.make()?;
        let mut append = self.append.lock();
        let append = &mut *append;
        append.active.take_room(&room);
        // It may have become full meanwhile; nobody seals it before this ends.
        append.closed.iter_mut().for_each(|(writer, _)| writer.take_room(&room));
        self.note_space(append);
        Ok(true)
    }

    /// The append lock, with a spare where one can be made: flushes are waited for before it is
    /// taken, not under it. What hinders a spare hinders rolling over too, and is told there.
    pub(crate) fn lock_to_roll(&self) -> MutexGuard<'_, Append> {
        let append = self.append.lock();
        if !append.spares.is_empty() || append.active.is_empty() {
            return append;
        }
        drop(append);
        drop(self.make_spare(true));
        self.append.lock()
    }

    /// Rolls the journal over to the spare, or to a segment made here and now.
    pub(crate) fn roll(&self, append: &mut Append, len: u64) -> Result<()> {
        let spare = append.spares.pop_front_if(|spare| spare.fits(len));
        let next = if let Some(spare) = spare {
            spare
        } else {
            let slot = self.take_slot(append)?;
            let made = self.create_journal(slot, self.next_target(append), len);
            made.inspect_err(|_| append.table.release(slot))?
        };
        append.swap_active(next, self.clock.monotonic_ms());
        self.publish_table(append);
        self.note_space(append);
        self.nudge();
        Ok(())
    }

    /// Commits an edit to the manifest. One that failed may be there or not, so nothing more is
    /// written from then on; a full disk that left nothing behind is no such failure.
    pub(crate) fn commit_edit(&self, ops: &Vec<Op>) -> Result<()> {
        self.manifest.commit(ops).inspect_err(|error| {
            if self.manifest.has_failed() {
                self.flusher.poison(error);
            }
        })
    }

    /// Removes the file of a number that will never count. What fails is done at the next open.
    pub(crate) fn discard_file(&self, id: u32) {
        if self.manifest.has_failed() {
            // The edit that lists the file may be on the disk; what it says is known when it is
            // read again.
            return;
        }
        let state = self.manifest.read(|set| set.files.get(&id).copied());
        let Some(state) = state else { return };
        let name = state.name(id);
        let dir = if state.is_archive() { &self.archive_dir } else { &self.dir };
        // Whoever opens the store misses what may hold records.
        if matches!(state, FileState::OpenSegment(_))
            && let Err(error) = self.commit_edit(&vec![Op::Doom { id }])
        {
            tracing::warn!(file = name, %error, "a file that does not count stays for now");
            return;
        }
        match dir.unlink(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = name, %error, "a file that no longer counts stays for now");
            }
            _ => {
                if let Err(error) = self.commit_edit(&vec![Op::Gone { id }]) {
                    tracing::warn!(file = name, %error, "an unlink was not recorded");
                }
            }
        }
    }

    /// Bytes that the log's files take, as far as their writers know.
    #[expect(clippy::unused_self, reason = "asked of the store, like its other figures")]
    pub(crate) fn warm_allocated(&self, append: &Append) -> u64 {
        let open = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
        let open: u64 =
            open.chain([&append.active]).chain(&append.spares).map(SegmentWriter::allocated).sum();
        let sealed = append.table.iter().filter_map(|segment| segment.sealed());
        open + sealed.map(|facts| facts.len.next_multiple_of(4096)).sum::<u64>()
    }

    /// Publishes the writer's table to the readers.
    pub(crate) fn publish_table(&self, append: &Append) {
        self.segments.store(Arc::new(append.table.clone()));
    }

    pub(crate) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
    }
}
