//! One batch into the log: room, sequence numbers, bytes, index, accounts, visible.
//! Knows the append path; knows nothing of who asked, or of when records move again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Damage, Error, Result};
use crate::format::record::{
    ATTACH_LEN, RecordHeader, RecordKind, attach_value, body_crc, body_crc_in, encoded_len, lag,
};
use crate::format::segment::SegmentKind;
use crate::hash::KeyHash;
use crate::hot::HotKey;
use crate::ids::{Incarnation, Location, Seq};
use crate::limits::{INLINE_RECORD_LEN_MAX, UNFLUSHED_LEN_MAX};
use crate::options::Durability;
use crate::tiers::append::Append;
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::{Tiers, bump};
use crate::warm::account::Weight;
use crate::warm::active::SegmentWriter;
use crate::warm::flush::DirtyRange;
use crate::warm::index::point::IndexFound;
use crate::warm::versions::{OldPlace, OldVersion};

/// One change of one key, with everything computed that needs no lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mutation<'a> {
    pub keyspace: &'a Arc<KeyspaceState>,
    pub incarnation: Incarnation,
    pub hash: KeyHash,
    pub key: &'a [u8],
    /// `None` deletes.
    pub value: Option<&'a [u8]>,
    pub deadline_ms: u64,
    body_crc: u32,
}

impl<'a> Mutation<'a> {
    pub(crate) fn new(
        tiers: &Tiers,
        keyspace: &'a Arc<KeyspaceState>,
        key: &'a [u8],
        value: Option<&'a [u8]>,
        deadline_ms: u64,
    ) -> Result<Self> {
        let incarnation = keyspace.incarnation()?;
        let hash = tiers.seed.hash(incarnation, key);
        let body_crc = body_crc_in(&keyspace.sums, incarnation, key, value.unwrap_or(&[]));
        Ok(Self { keyspace, incarnation, hash, key, value, deadline_ms, body_crc })
    }

    pub(crate) fn encoded_len(&self) -> u64 {
        encoded_len(self.key.len(), self.value.map_or(0, <[u8]>::len))
    }

    fn weight(&self) -> Weight {
        Weight {
            incarnation: self.incarnation,
            deadline_ms: self.deadline_ms,
            len: self.encoded_len(),
            tombstone: self.value.is_none(),
        }
    }

    fn header(&self, seq: Seq, durable: Seq, more: bool, batch: bool) -> RecordHeader {
        let kind = if self.value.is_some() { RecordKind::Put } else { RecordKind::Tombstone };
        RecordHeader {
            body_crc: self.body_crc,
            seq,
            deadline_ms: self.deadline_ms,
            value_len: u32::try_from(self.value.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX),
            key_len: u16::try_from(self.key.len()).unwrap_or(u16::MAX),
            kind,
            more,
            batch,
            old: false,
            incarnation: self.incarnation,
            watermark_lag: lag(seq, durable),
        }
    }
}

/// What must still be so when a write is made, asked under the append lock.
#[derive(Clone, Copy)]
pub(crate) enum Guard<'g> {
    /// Nothing.
    Free,
    /// The first mutation's key has the version that was read.
    Version(Expected),
    /// Nothing that was read has changed.
    Unchanged(&'g dyn Fn() -> bool),
}

/// What an optimistic writer read before it decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The version that was there; `None` for absent.
    pub seq: Option<Seq>,
    /// The count of moves when it was read.
    pub moves: u64,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; this is the `seq` of the last mutation.
    Done(Seq),
    /// Somebody else was first; nothing was written.
    Raced,
}

/// The newest record of a key in the log, as a writer sees it.
struct Newest {
    found: IndexFound,
    weight: Option<Weight>,
    seq: Seq,
    batch_tombstone: bool,
}

impl Tiers {
    /// Writes the mutations as one unit and makes them visible at once.
    pub(crate) fn write(
        &self,
        mutations: &[Mutation<'_>],
        guard: Guard<'_>,
        durability: Durability,
    ) -> Result<Outcome> {
        self.check_open()?;
        self.check_writable("write")?;
        self.flusher.check("write")?;
        self.wait_for_space(mutations)?;
        let len: u64 = mutations.iter().map(Mutation::encoded_len).sum();
        let mut attached = if len > INLINE_RECORD_LEN_MAX {
            Some(self.prepare_attached(mutations, len)?)
        } else {
            None
        };
        let room = if attached.is_some() { encoded_len(0, ATTACH_LEN) } else { len };
        let mut append = self.append.lock();
        if !append.active.fits(room) {
            drop(append);
            append = self.lock_to_roll();
        }
        let outcome = self.append_locked(&mut append, mutations, guard, len, attached.as_mut());
        let over = append.unflushed_bytes >= UNFLUSHED_LEN_MAX;
        match (&outcome, attached) {
            (Ok(Outcome::Done(seq)), Some(prepared)) => {
                append.attached.push_back((prepared.writer, *seq));
            }
            (_, Some(prepared)) => {
                append.table.release(prepared.writer.segment.slot);
                drop(append);
                let id = prepared.writer.segment.id.0;
                drop(prepared);
                self.discard_file(id);
                return outcome;
            }
            _ => {}
        }
        drop(append);
        self.help_sort(mutations.len());
        if let Ok(Outcome::Done(seq)) = outcome
            && (over || durability == Durability::Synced)
        {
            self.flush_through(seq)?;
        }
        outcome
    }

    /// Bodies go to a segment of their own before the lock is taken.
    fn prepare_attached(&self, mutations: &[Mutation<'_>], len: u64) -> Result<Prepared> {
        let slot = {
            let mut append = self.append.lock();
            self.take_slot(&mut append)?
        };
        let made =
            self.create_segment(SegmentKind::Attached, slot, len + 4096).and_then(|mut w| match w
                .make_room(len)
            {
                Ok(()) => Ok(w),
                Err(error) => {
                    let id = w.segment.id.0;
                    drop(w);
                    self.discard_file(id);
                    Err(error)
                }
            });
        let mut writer = made.inspect_err(|_| self.append.lock().table.release(slot))?;
        let first = writer.next_place();
        for mutation in mutations {
            writer.reserve(mutation.key, mutation.value.unwrap_or(&[]));
        }
        Ok(Prepared { writer, first })
    }

    fn append_locked(
        &self,
        append: &mut Append,
        mutations: &[Mutation<'_>],
        guard: Guard<'_>,
        len: u64,
        mut attached: Option<&mut Prepared>,
    ) -> Result<Outcome> {
        // Behind the lock: what is appended after closing sealed the journal would be lost.
        self.check_open()?;
        if mutations.iter().any(|m| m.keyspace.incarnation().ok() != Some(m.incarnation)) {
            return Ok(Outcome::Raced);
        }
        let holds = match (guard, mutations.first()) {
            (Guard::Version(expected), Some(first)) => self.still_holds(append, first, expected)?,
            (Guard::Unchanged(check), _) => check(),
            _ => true,
        };
        if !holds {
            return Ok(Outcome::Raced);
        }
        let room = if attached.is_some() { encoded_len(0, ATTACH_LEN) } else { len };
        if !append.active.fits(room) {
            self.roll(append, room)?;
        }
        append.active.make_room(room)?;
        let first = match attached.as_deref_mut() {
            Some(prepared) => self.store_attached(append, mutations, prepared),
            None => self.store_inline(append, mutations),
        };
        let of_body = attached.map_or(Ok(()), |prepared| prepared.writer.stored());
        self.check_stored(of_body.and_then(|()| append.active.stored()))?;
        self.enter(append, mutations, first)?;
        self.note_written(append, room);
        bump(&self.counters.user_bytes, len);
        Ok(Outcome::Done(append.last_seq))
    }

    /// Where files are not mapped a store may fail. What follows it could not be told from a tail,
    /// so nothing follows.
    pub(crate) fn check_stored(&self, stored: Result<()>) -> Result<()> {
        stored.inspect_err(|error| self.flusher.poison(error))
    }

    pub(crate) fn note_written(&self, append: &mut Append, len: u64) {
        let now = self.clock.now_ms();
        append.unflushed_bytes += len;
        append.written_ms = now;
        if append.unflushed_since_ms == 0 {
            append.unflushed_since_ms = now;
            self.nudge();
        } else if append.active.needs_room_since(len) {
            self.nudge();
        }
        bump(&self.counters.journal_bytes, len);
    }

    /// Answers where the first record stands; the others follow it.
    fn store_inline(&self, append: &mut Append, mutations: &[Mutation<'_>]) -> Location {
        let durable = self.flusher.durable();
        let first = append.active.next_place();
        for (index, mutation) in mutations.iter().enumerate() {
            append.last_seq = append.last_seq.next();
            let more = index + 1 < mutations.len();
            let header = mutation.header(append.last_seq, durable, more, mutations.len() > 1);
            let value = mutation.value.unwrap_or(&[]);
            append.active.append(&header, mutation.key, value);
        }
        append.active.publish();
        first
    }

    /// Finishes the headers of an attached segment and enters it into the journal.
    fn store_attached(
        &self,
        append: &mut Append,
        mutations: &[Mutation<'_>],
        prepared: &mut Prepared,
    ) -> Location {
        let durable = self.flusher.durable();
        let first = prepared.first;
        for (index, (mutation, at)) in placed(mutations, first).enumerate() {
            append.last_seq = append.last_seq.next();
            let more = index + 1 < mutations.len();
            let header = mutation.header(append.last_seq, durable, more, mutations.len() > 1);
            prepared.writer.finish(at.offset, &header);
        }
        prepared.writer.publish();
        let segment = Arc::clone(&prepared.writer.segment);
        let records_end = prepared.writer.tail();
        append.open_account(segment.slot, segment.created_ms);
        append.table.insert(Arc::clone(&segment));
        self.publish_table(append);
        append.note_dirty(DirtyRange { segment: Arc::clone(&segment), from: 0, to: records_end });
        append.unflushed_bytes += records_end;
        bump(&self.counters.journal_bytes, records_end);
        let count = u32::try_from(mutations.len()).unwrap_or(u32::MAX);
        let value = attach_value(segment.id.0, count, records_end);
        self.append_mark(append, RecordKind::Attach, Incarnation(0), &value, append.last_seq);
        first
    }

    /// Appends a record that is no key's: attach or clear. The caller made room.
    pub(crate) fn append_mark(
        &self,
        append: &mut Append,
        kind: RecordKind,
        incarnation: Incarnation,
        value: &[u8],
        seq: Seq,
    ) {
        let header = RecordHeader {
            body_crc: body_crc(incarnation, &[], value),
            seq,
            deadline_ms: 0,
            value_len: u32::try_from(value.len()).unwrap_or(u32::MAX),
            key_len: 0,
            kind,
            more: false,
            batch: false,
            old: false,
            incarnation,
            watermark_lag: lag(seq, self.flusher.durable()),
        };
        append.active.append(&header, &[], value);
        append.active.publish();
        let slot = append.active.segment.slot;
        if let Some(account) = append.account(slot) {
            account.add_dead(header.encoded_len());
        }
    }

    /// Points the index at the new records and makes them visible.
    fn enter(
        &self,
        append: &mut Append,
        mutations: &[Mutation<'_>],
        first: Location,
    ) -> Result<()> {
        let before = self.visible();
        let until = append.last_seq;
        if mutations.len() > 1 {
            // Whoever reads before all of it is visible needs what it replaces.
            for mutation in mutations {
                if let Some(newest) = self.newest(append, mutation)? {
                    self.keep_version(append, mutation.hash, &newest, until);
                }
            }
        }
        for (mutation, at) in placed(mutations, first) {
            self.switch(append, mutation, at)?;
        }
        self.changes.note(mutations, until);
        self.visible.store(until.0, Ordering::Release);
        self.changes.wake();
        if mutations.len() > 1 {
            for mutation in mutations {
                self.drop_version(append, mutation.hash, before);
            }
        }
        Ok(())
    }

    /// Enters the version that is about to be replaced into the version table.
    fn keep_version(&self, append: &mut Append, hash: KeyHash, newest: &Newest, until: Seq) {
        let location = newest.found.entry().location;
        let gone = newest.batch_tombstone;
        let place = if gone { OldPlace::Gone } else { OldPlace::Warm(location) };
        let entered = self.versions.enter(hash, OldVersion { seq: newest.seq, until, place });
        if entered
            && !gone
            && let Some(weight) = &newest.weight
        {
            append.pin(location, weight.len);
        }
    }

    /// Drops the version of a key that a batch replaced, now that the batch is visible, unless
    /// somebody looks at a moment before it.
    fn drop_version(&self, append: &mut Append, hash: KeyHash, before: Seq) {
        if let Some(old) = self.versions.at(hash, before)
            && !self.moments.need(old.seq)
            && let Some(place) = self.versions.remove(hash, old.seq)
        {
            append.unpin_place(place);
        }
    }

    /// One key: the resident copy goes, the index points at the new record, the accounts follow.
    fn switch(&self, append: &mut Append, mutation: &Mutation<'_>, to: Location) -> Result<()> {
        let newest = self.newest(append, mutation)?;
        if let Some(newest) = &newest
            && newest.seq <= self.visible()
            && self.moments.need(newest.seq)
        {
            self.keep_version(append, mutation.hash, newest, append.last_seq);
            self.bound_versions();
        }
        let tag = mutation.hash.tag();
        let tombstone = mutation.value.is_none();
        let Mutation { hash, incarnation, key, .. } = *mutation;
        self.hot.replace_with(&HotKey { hash, incarnation, key }, || match &newest {
            Some(newest) => {
                append.supersede(newest.found.entry().location);
                self.index.replace(&mut append.index, &newest.found, to, tombstone);
                Ok(())
            }
            None => self
                .index
                .insert(&mut append.index, tag, to, tombstone)
                .map_err(|error| Error::io("grow index", "anonymous memory", error)),
        })?;
        if newest.is_none() && !mutation.keyspace.unordered {
            self.order.push(tag);
        }
        let was_there = newest.as_ref().is_some_and(|newest| !newest.batch_tombstone);
        if let Some(Newest { found, weight: Some(weight), .. }) = &newest {
            append.kill(found.entry().location, weight);
        }
        if let Some(account) = append.account(to.slot) {
            account.add(&mutation.weight());
        }
        mutation.keyspace.count_by(i64::from(!tombstone) - i64::from(was_there));
        bump(if tombstone { &self.counters.deletes } else { &self.counters.puts }, 1);
        Ok(())
    }

    /// The newest record of the mutation's key in the log. A record that cannot be read counts as
    /// this key's: writing over it is how damage heals.
    fn newest(&self, append: &Append, mutation: &Mutation<'_>) -> Result<Option<Newest>> {
        let mut seen: Option<(Option<Weight>, Seq, bool)> = None;
        let tag = mutation.hash.tag();
        let found = self.index.find_for_change(&append.index, tag, |entry| {
            let Some(segment) = append.table.of(entry.location) else { return Ok(false) };
            let offset = entry.location.offset;
            let read = segment.record(u64::from(offset));
            let (same, weight, seq, tombstone) = match &read {
                Ok(record) => {
                    let header = &record.header;
                    let weight = Weight::of(header);
                    // A key that rotted counts as this one as well.
                    let same = header.incarnation == mutation.incarnation
                        && (record.key == mutation.key || !self.has_tag(record, tag));
                    (same, Some(weight), header.seq, weight.tombstone)
                }
                Err(_) => match segment.witness(tag, offset) {
                    Some(told) => {
                        let weight = Weight::told(&told);
                        let same = told.incarnation == mutation.incarnation;
                        (same, Some(weight), told.seq, told.tombstone)
                    }
                    None => (true, None, Seq::ZERO, false),
                },
            };
            if same {
                seen = Some((weight, seq, tombstone));
            }
            Ok::<_, Damage>(same)
        })?;
        let Some((found, (weight, seq, batch_tombstone))) = found.zip(seen) else {
            return Ok(None);
        };
        Ok(Some(Newest { found, weight, seq, batch_tombstone }))
    }

    /// Whether what an optimistic writer read is still the newest.
    fn still_holds(
        &self,
        append: &Append,
        mutation: &Mutation<'_>,
        expected: Expected,
    ) -> Result<bool> {
        let Some(newest) = self.newest(append, mutation)? else {
            return Ok(expected.moves == self.moves.load(Ordering::Acquire));
        };
        if expected.seq == Some(newest.seq) {
            return Ok(!newest.batch_tombstone);
        }
        let deadline = newest.weight.map_or(0, |weight| weight.deadline_ms);
        let expired = deadline != 0 && deadline <= self.clock.now_ms();
        Ok(expected.seq.is_none() && (newest.batch_tombstone || expired))
    }
}

/// An attached segment whose bodies are stored and whose headers are not.
#[derive(Debug)]
struct Prepared {
    writer: SegmentWriter,
    /// Where the first record stands.
    first: Location,
}

/// Mutations, each with the place of its record: they stand one behind the other.
fn placed<'m, 'a>(
    mutations: &'m [Mutation<'a>],
    first: Location,
) -> impl Iterator<Item = (&'m Mutation<'a>, Location)> {
    let mut next = first;
    mutations.iter().map(move |mutation| {
        let at = next;
        next = at.behind(mutation.encoded_len());
        (mutation, at)
    })
}
