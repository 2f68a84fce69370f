//! An ordered walk over log and archives at one moment, a window of keys at a time.
//! Knows how the tiers' records merge; knows nothing of who walks or what is done with a row.
//!
//! A window is what one leaf of the order covers. Its keys are looked up in the log first, and the
//! set of archives is loaded after that: a record that moved down meanwhile is found there. Between
//! two windows nothing is pinned but the archives' cursors and the segments of the last window.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::cold::ArchiveSet;
use crate::error::{Damage, Error, Result};
use crate::format::record::RecordKind;
use crate::key::Key;
use crate::tiers::Tiers;
use crate::tiers::archived::{Archived, ArchivedRow};
use crate::tiers::lane::{Lane, Next, ROWS_AT_FIRST, Window};
use crate::tiers::order::IndexedKeys;
use crate::tiers::read::{Hit, KeyRef, Old};
use crate::tiers::span::{Direction, Span, is_inside, sort_key};
use crate::tiers::window::{Bounds, Looked, Placed, WarmRow};
use crate::value::Value;
use crate::value::pins::Site;
use crate::warm::index::order::Tagged;

/// Archived rows that one window takes at most.
const ARCHIVED_PER_WINDOW: usize = 128;
/// A walk that has room for more tags is not kept for the next.
const TAGS_KEPT: usize = 512;
/// Walks that are kept for the next ones.
const WALKS_KEPT: usize = 4;
/// Leaves that a walk that goes on asks for ahead of its next window.
const LEAVES_AHEAD: usize = 3;
/// How often damage must be seen in the same place before it is believed.
const DAMAGE_SEEN_MIN: u32 = 3;

/// One record of the walk, or damage where there may be one.
#[derive(Debug)]
pub(crate) enum Row<'w> {
    Warm(WarmRow<'w>),
    Cold(&'w ArchivedRow),
    Damaged(&'w Error),
}

impl Row<'_> {
    /// The key, unless it is damaged.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Warm(row) => Some(row.record.key),
            Self::Cold(row) => Some(&row.key),
            Self::Damaged(_) => None,
        }
    }

    /// Hands key and value to `read` without a copy.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8], &[u8]) -> R) -> Result<R> {
        match self {
            Self::Warm(row) => row.pair().map(|(key, value)| read(key, value)),
            Self::Cold(row) => Ok(read(&row.key, &row.value)),
            Self::Damaged(error) => Err((*error).clone()),
        }
    }

    pub(crate) fn to_pair(&self, tiers: &Tiers, site: Site) -> Result<(Key, Value)> {
        match self {
            Self::Warm(row) => {
                let (key, _) = row.pair()?;
                let Placed { header, offset, .. } = row.place;
                let segment = Arc::clone(row.segment);
                let hit = Hit::Warm { segment, offset: u64::from(*offset), header: *header };
                Ok((Key::from(key), hit.value_for(key, tiers, site)))
            }
            Self::Cold(row) => Ok((row.key.clone(), row.value.clone().counted(&tiers.pins, site))),
            Self::Damaged(error) => Err((*error).clone()),
        }
    }

    pub(crate) fn to_key(&self) -> Result<Key> {
        match self {
            Self::Warm(row) => Ok(Key::from(row.record.key)),
            Self::Cold(row) => Ok(row.key.clone()),
            Self::Damaged(error) => Err((*error).clone()),
        }
    }
}

/// The memory of walks that ended, a few KiB each.
#[derive(Debug)]
pub(crate) struct SpareWalks(ArrayQueue<Box<Walk>>);

impl Default for SpareWalks {
    fn default() -> Self {
        Self(ArrayQueue::new(WALKS_KEPT))
    }
}

/// A row of the window that was looked up.
#[derive(Debug)]
enum Kept {
    Warm(Placed),
    Cold(ArchivedRow),
    Damaged(Error),
}

/// What the log says of one key.
enum Told {
    Row(Placed),
    /// The key is absent at the moment, whatever the archives hold.
    Absent(Placed),
    Damaged(Damage),
}

/// One direction of a walk.
#[derive(Debug)]
pub(crate) struct Walk {
    direction: Direction,
    /// What was not walked yet.
    rest: Range<Vec<u8>>,
    /// Nothing was looked up yet.
    begins: bool,
    /// Tags of the window, and a window; kept for their memory.
    tags: Vec<Tagged>,
    spare: Window,
    looked: Looked,
    rows: VecDeque<Kept>,
    /// The row that was given last.
    given: Option<Kept>,
    archived: Archived,
    lane: Lane,
}

impl Walk {
    /// A walk over the span: one whose memory somebody gave back, where there is one.
    pub(crate) fn begin(tiers: &Tiers, span: &Span, direction: Direction) -> Box<Self> {
        let Some(mut walk) = tiers.extra.walks.0.pop() else {
            return Box::new(Self::new(span, direction));
        };
        walk.direction = direction;
        walk.rest.start.clone_from(&span.keys.start);
        walk.rest.end.clone_from(&span.keys.end);
        walk.begins = true;
        walk.archived = Archived::new(direction);
        walk.lane.reset(direction);
        walk
    }

    fn new(span: &Span, direction: Direction) -> Self {
        Self {
            direction,
            rest: span.keys.clone(),
            begins: true,
            tags: Vec::new(),
            spare: Window::default(),
            looked: Looked::default(),
            rows: VecDeque::new(),
            given: None,
            archived: Archived::new(direction),
            lane: Lane::new(direction),
        }
    }

    /// Ends the walk and lets go of all it holds but some memory.
    pub(crate) fn end(mut self: Box<Self>, tiers: &Tiers) {
        if self.tags.capacity().max(self.lane.capacity()) > TAGS_KEPT {
            return;
        }
        self.looked.clear();
        self.rows.clear();
        self.given = None;
        self.archived = Archived::new(self.direction);
        drop(tiers.extra.walks.0.push(self));
    }

    /// Nobody waits between two rows of this walk from now on.
    pub(crate) fn hurry(&mut self) {
        self.lane.is_quick = true;
    }

    /// Hands what is left of the window to `each`, as far as nothing has to be asked for it.
    pub(crate) fn run(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        each: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.lane.run(tiers, &self.looked, span, each)
    }

    /// The next record in this direction.
    pub(crate) fn next(&mut self, tiers: &Tiers, span: &Span) -> Result<Option<Row<'_>>> {
        loop {
            match self.lane.next(tiers, &self.looked, span) {
                Next::Row(place) => {
                    self.given = Some(Kept::Warm(place));
                    break;
                }
                Next::Nothing => continue,
                Next::Unknown => {
                    self.lane.leave(&self.looked, span.incarnation, &mut self.rest);
                    self.fill(tiers, span, false)?;
                }
                Next::End => {}
            }
            if self.rows.is_empty() {
                if self.rest.start >= self.rest.end {
                    return Ok(None);
                }
                self.fill(tiers, span, true)?;
                continue;
            }
            self.given = self.rows.pop_front();
            // It may have expired since its window was looked up.
            let deadline = match &self.given {
                Some(Kept::Warm(place)) => place.header.deadline_ms,
                Some(Kept::Cold(row)) => row.deadline_ms,
                _ => 0,
            };
            if tiers.is_alive(deadline) {
                break;
            }
        }
        Ok(self.given.as_ref().and_then(|given| match given {
            Kept::Warm(place) => self.looked.row(place).map(Row::Warm),
            Kept::Cold(row) => Some(Row::Cold(row)),
            Kept::Damaged(error) => Some(Row::Damaged(error)),
        }))
    }

    /// Takes the next window: by the lane where it may and can, else looks it up.
    fn fill(&mut self, tiers: &Tiers, span: &Span, by_lane: bool) -> Result<()> {
        if by_lane && self.take_lane(tiers) {
            return Ok(());
        }
        let mut window = self.collect(tiers, 1).keys;
        self.begins = false;
        self.look_tags(tiers, &Bounds::of(span.incarnation, &window));
        let set = tiers.cold.load();
        let told = self.tell_all(tiers, span)?;
        let mut cold = self.cold_rows(tiers, span, &set, &mut window)?;
        self.merge(told, &mut cold, &window);
        match self.direction {
            Direction::Forward => self.rest.start = window.end,
            Direction::Backward => self.rest.end = window.start,
        }
        Ok(())
    }

    /// Collects the tags of so many leaves, and says what they cover of the rest.
    fn collect(&mut self, tiers: &Tiers, leaves: usize) -> Window {
        self.tags.clear();
        self.tags.reserve(ROWS_AT_FIRST);
        let (rest, mut window) = (&self.rest, std::mem::take(&mut self.spare));
        let (start, end) = (&mut window.keys.start, &mut window.keys.end);
        start.clone_from(&rest.start);
        end.clone_from(&rest.end);
        let fence = match self.direction {
            Direction::Forward => {
                let ahead = if self.begins { 0 } else { LEAVES_AHEAD };
                tiers.order.tags_from(&rest.start, leaves, ahead, &mut self.tags)
            }
            Direction::Backward => tiers.order.tags_before(&rest.end, &mut self.tags),
        };
        let fence = fence.filter(|fence| (&*rest.start..=&*rest.end).contains(&&**fence));
        window.is_cut = fence.is_none();
        window.opens = true;
        if let Some(fence) = fence {
            let bound = if self.direction == Direction::Forward { end } else { start };
            bound.clear();
            bound.extend_from_slice(&fence);
        }
        if self.begins {
            self.tags.extend(tiers.order.placeless());
        }
        window
    }

    /// Takes the next window by the lane, where that can. Where hints are dead, the index is asked
    /// once for all of them, and the order knows better from then on.
    fn take_lane(&mut self, tiers: &Tiers) -> bool {
        for is_first in [true, false] {
            let window = self.collect(tiers, self.lane.leaves);
            // What left the order for an archive left it after the archive was there to be seen.
            let may = tiers.cold.load().entries().is_empty();
            if may && self.lane.take(tiers, &mut self.tags, &mut self.looked) {
                self.begins = false;
                match self.direction {
                    Direction::Forward => self.rest.start.clone_from(&window.keys.end),
                    Direction::Backward => self.rest.end.clone_from(&window.keys.start),
                }
                self.spare = self.lane.cover(window);
                return true;
            }
            let may = may && is_first && self.lane.is_worth_asking;
            if may {
                self.revive(tiers, &window);
            }
            self.spare = window;
            if !may {
                break;
            }
        }
        false
    }

    /// Asks the index for what the lane found dead; what nobody knows leaves the order.
    fn revive(&mut self, tiers: &Tiers, window: &Window) {
        tiers.learn(&self.lane.dead, &mut self.lane.asked);
        if self.lane.asked.len() < self.lane.dead.len() && tiers.versions.is_empty() {
            let source = IndexedKeys::new(tiers);
            tiers.order.sweep_at(&window.keys.start, self.lane.leaves, &source);
        }
    }

    /// Looks up what the log holds of the keys that were collected, inside the bounds, in order.
    fn look_tags(&mut self, tiers: &Tiers, bounds: &Bounds<'_>) {
        for seen in 1.. {
            let stable = tiers.look_tagged(&self.tags, bounds, &mut self.looked);
            if stable && (self.looked.damage.is_empty() || seen >= DAMAGE_SEEN_MIN) {
                break;
            }
        }
        self.looked.sort();
    }

    /// What holds for each key at the moment, in the order of the direction.
    fn tell_all(&mut self, tiers: &Tiers, span: &Span) -> Result<Vec<Told>> {
        let mut found = std::mem::take(&mut self.looked.found);
        if self.direction == Direction::Backward {
            found.reverse();
        }
        let mut told = Vec::with_capacity(found.len() + self.looked.damage.len());
        for place in found {
            self.tell(tiers, span, place, &mut told)?;
        }
        told.extend(self.looked.damage.drain(..).map(Told::Damaged));
        Ok(told)
    }

    /// What holds for one key at the moment.
    fn tell(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        place: Placed,
        told: &mut Vec<Told>,
    ) -> Result<()> {
        if !span.values
            && let Some(damage) = self.check_key(tiers, span, &place)
        {
            told.push(Told::Damaged(damage));
            return Ok(());
        }
        if place.named && place.header.seq <= span.moment {
            let gone = place.header.kind == RecordKind::Tombstone
                || !tiers.is_alive(place.header.deadline_ms);
            told.push(if gone { Told::Absent(place) } else { Told::Row(place) });
            return Ok(());
        }
        let key = self.looked.key(&place);
        let hash = tiers.seed.hash(span.incarnation, key);
        let old = tiers.old_hit(&KeyRef { incarnation: span.incarnation, hash, key }, span.moment);
        match old {
            Ok(Old::Hit(Hit::Warm { segment, offset, header })) => {
                let segment = self.looked.number_of(&segment);
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                told.push(Told::Row(Placed { header, offset, segment, ..place }));
            }
            Ok(Old::Absent) => told.push(Told::Absent(place)),
            // Where it lies in an archive, the walk over the archives meets it.
            Ok(Old::Hit(Hit::Cold(_)) | Old::Unknown) => {}
            Err(Error::Corrupt(damage)) => told.push(Told::Damaged(*damage)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Where the key alone is read, its hash is its checksum; where that differs, the body tells.
    fn check_key(&self, tiers: &Tiers, span: &Span, place: &Placed) -> Option<Damage> {
        let row = self.looked.row(place)?;
        if tiers.seed.hash(span.incarnation, row.record.key).tag() == place.tag {
            return None;
        }
        let offset = u64::from(place.offset);
        row.segment.check_body(offset, &row.record).err()
    }

    /// The archived rows of the window. When there are many, the window ends with them.
    fn cold_rows(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        set: &Arc<ArchiveSet>,
        window: &mut Range<Vec<u8>>,
    ) -> Result<VecDeque<Result<ArchivedRow>>> {
        let mut rows = VecDeque::new();
        if set.entries().is_empty() {
            return Ok(rows);
        }
        self.archived.follow(tiers, span, set, &self.rest)?;
        while let Some(row) = self.archived.next(tiers, span, window).transpose() {
            rows.push_back(row);
            let Some(Ok(last)) = rows.back() else { continue };
            if rows.len() >= ARCHIVED_PER_WINDOW {
                let mut last = sort_key(span.incarnation, &last.key);
                if self.direction == Direction::Forward {
                    last.push(0);
                    window.end = last;
                } else {
                    window.start = last;
                }
                break;
            }
        }
        Ok(rows)
    }

    fn merge(
        &mut self,
        told: Vec<Told>,
        cold: &mut VecDeque<Result<ArchivedRow>>,
        window: &Range<Vec<u8>>,
    ) {
        let shortened = cold.len() >= ARCHIVED_PER_WINDOW;
        for one in told {
            let place = match &one {
                Told::Row(place) | Told::Absent(place) => place,
                Told::Damaged(damage) => {
                    self.rows.push_back(Kept::Damaged(damage.clone().into()));
                    continue;
                }
            };
            if shortened || !cold.is_empty() {
                let key = self.looked.key(place);
                if shortened && !is_inside(place.header.incarnation, key, window) {
                    break;
                }
                let before = before(cold, key, self.direction);
                self.rows.extend(before);
            }
            if let Told::Row(place) = one {
                self.rows.push_back(Kept::Warm(place));
            }
        }
        self.rows.extend(cold.drain(..).map(kept));
    }
}

fn kept(row: Result<ArchivedRow>) -> Kept {
    row.map_or_else(Kept::Damaged, Kept::Cold)
}

/// Takes the archived rows that come before `key`, and drops the one with that key: the log knows
/// better.
fn before(cold: &mut VecDeque<Result<ArchivedRow>>, key: &[u8], direction: Direction) -> Vec<Kept> {
    let mut taken = Vec::new();
    while let Some(first) = cold.front() {
        let Ok(row) = first else {
            taken.extend(cold.pop_front().map(kept));
            continue;
        };
        let (a, b) = match direction {
            Direction::Forward => (&*row.key, key),
            Direction::Backward => (key, &*row.key),
        };
        match a.cmp(b) {
            Ordering::Equal => drop(cold.pop_front()),
            Ordering::Less => taken.extend(cold.pop_front().map(kept)),
            Ordering::Greater => break,
        }
    }
    taken
}
