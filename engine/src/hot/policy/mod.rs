//! Who stays in one shard: LIRS (Jiang and Zhang, SIGMETRICS 2002) over epochs instead of lists,
//! with a share for probation that follows what small caches of a sample would have hit.
//! Knows marks and tags; knows nothing of bytes or budgets.
//!
//! A record that is touched again after a shorter time than some protected record becomes
//! protected; the protected one that was touched longest ago makes way and is on probation, as
//! all new ones are. Victims come from probation. Where plain recency would have hit more, the
//! victim is whoever was touched longest ago.
//!
//! A touch writes an epoch into the entry's own line and counts it: no list, no second line. Who
//! was touched longest ago is looked for by a hand that goes round the table, among the next few
//! entries; in a small shard among all. Duties of the caller: entries enter and leave the table
//! through the policy, volatile ones excepted.

pub(crate) mod as_is;
mod choice;
pub(crate) mod epoch;
mod shadow;

use crate::hot::ghost::Ghost;
use crate::hot::policy::choice::Choice;
use crate::hot::policy::epoch::{AGE_MAX, Class, EPOCHS, EPOCHS_A_TURN, Mark, ROUND, age, before};
use crate::hot::table::{At, Entry, Table};

/// Hashes that the ghost remembers at least: a page of them.
const GHOST_COUNT_MIN: usize = 1024;
/// Among how many the one touched longest ago is looked for, where all or the protected count.
const LOOKS: usize = 64;
/// The same on probation, which is short.
const LOOKS_ON_PROBATION: usize = 16;
/// Up to this many records the hand looks at all of them.
const SMALL_COUNT: usize = 512;
/// Records that make way at once when the share for probation grows.
const DEMOTED_AT_ONCE: usize = 8;

/// Which records a hand looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Among {
    All,
    Protected,
    Probation,
}

#[derive(Debug)]
pub(crate) struct Policy {
    /// Protected records by the epoch of their last touch.
    protected_at: Vec<u32>,
    protected: usize,
    /// Resident records, without the volatile ones.
    count: usize,
    now: u16,
    /// Touches of this epoch.
    ticks: usize,
    /// The epoch of the protected record that was touched longest ago.
    bottom: u16,
    hand: usize,
    probation_hand: usize,
    /// The part of the table whose marks are kept from going round next.
    part: u16,
    ghost: Ghost,
    choice: Choice,
    /// Touches until the shadows rest, for nothing entered for long.
    awake: usize,
    /// Records that are expected when the budget is taken; 0 once something was evicted.
    expected: usize,
}

impl Policy {
    /// A policy whose shadows may take `shadow_room` bytes; with too few, the share for probation
    /// stays as it is.
    pub(crate) fn new(shadow_room: u64) -> Self {
        let choice = if Choice::cost() <= shadow_room { Choice::new() } else { Choice::default() };
        Self {
            protected_at: vec![0; usize::from(EPOCHS)],
            protected: 0,
            count: 0,
            now: 0,
            ticks: 0,
            bottom: 0,
            hand: 0,
            probation_hand: 0,
            part: 0,
            ghost: Ghost::new(GHOST_COUNT_MIN),
            choice,
            awake: 0,
            expected: 0,
        }
    }

    /// Resident records that may be evicted.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Says how many records there will be when the budget is taken.
    pub(crate) fn expect(&mut self, count: usize) {
        self.expected = count;
        self.choice.set_count(self.full_count());
    }

    /// How many records there are when the budget is taken, as far as is known.
    fn full_count(&self) -> usize {
        self.count.max(self.expected)
    }

    fn protected_max(&self) -> Option<usize> {
        self.choice.protected_max(self.full_count())
    }

    /// Bytes that the policy's own memory takes.
    pub(crate) fn charged(&self) -> u64 {
        let epochs = crate::hot::allocation_len(usize::from(EPOCHS) * 4);
        epochs + self.ghost.charged() + self.choice.charged()
    }

    /// A touch of a resident record.
    #[inline]
    pub(crate) fn touch(&mut self, table: &mut Table, at: At, tag: u32) {
        self.show(tag);
        let mark = Mark(table.mark(at));
        let class = match mark.class() {
            Class::Volatile => return,
            Class::Protected => Class::Protected,
            class => {
                let early = class == Class::New && self.is_early(mark.epoch());
                let rises = self.protected_max().is_some_and(|max| self.protected < max || early);
                if rises { Class::Protected } else { Class::New }
            }
        };
        if mark.epoch() != self.now || mark.class() != class {
            self.set(table, at, mark.with(class, self.now));
            self.tick(table);
            if class != mark.class() {
                self.demote(table);
            }
        }
    }

    /// A touch of a record that is not resident; answers whether it was touched before.
    pub(crate) fn note_touch(&mut self, tag: u32) -> bool {
        self.show(tag);
        let noted = self.ghost.find(tag).is_some();
        if !noted {
            self.ghost.note(tag, self.now, self.now);
        }
        noted
    }

    /// Enters a record. The table has room.
    pub(crate) fn admit(&mut self, table: &mut Table, tag: u32, place: u32, has_deadline: bool) {
        let noted = self.ghost.take(tag);
        let protected = self.protected_max().is_some_and(|max| {
            self.protected < max || noted.is_some_and(|epoch| self.is_early(epoch))
        });
        self.count += 1;
        self.awake = self.count * 4;
        if self.count > self.ghost.capacity() {
            self.ghost = Ghost::new(self.count + self.count / 8);
        }
        let class = if protected { Class::Protected } else { Class::New };
        let mark = Mark::new(class, self.now, has_deadline);
        table.insert(Entry { tag, place, mark: mark.0 });
        self.count_mark(mark, true);
        self.tick(table);
        self.demote(table);
    }

    /// Takes out whoever should leave first, and remembers that it was there.
    pub(crate) fn evict(&mut self, table: &mut Table) -> Option<Entry> {
        self.expected = 0;
        let at = match self.protected_max() {
            None => self.longest_ago(table, Among::All),
            Some(_) => self
                .longest_ago(table, Among::Probation)
                .or_else(|| self.longest_ago(table, Among::Protected)),
        }?;
        let entry = table.entry(at.slot())?;
        let mark = Mark(entry.mark);
        if mark.class() != Class::Demoted {
            self.ghost.note(entry.tag, mark.epoch(), self.now);
        }
        self.remove(table, at);
        Some(entry)
    }

    /// Takes a record out; nothing is remembered.
    pub(crate) fn remove(&mut self, table: &mut Table, at: At) {
        let mark = Mark(table.mark(at));
        if mark.class() != Class::Volatile {
            self.count_mark(mark, false);
            self.count -= 1;
        }
        table.remove(at);
    }

    fn is_early(&self, epoch: u16) -> bool {
        age(epoch, self.now) < age(self.bottom, self.now)
    }

    /// Shows a touch to the shadows, unless nothing has left for long.
    #[inline]
    pub(crate) fn show(&mut self, tag: u32) {
        if self.awake > 0 {
            self.awake -= 1;
            self.choice.touch(tag);
        }
    }

    fn set(&mut self, table: &mut Table, at: At, mark: Mark) {
        self.count_mark(Mark(table.mark(at)), false);
        self.count_mark(mark, true);
        table.set_mark(at, mark.0);
    }

    /// Counts a protected record in or out; the bottom follows.
    #[inline]
    fn count_mark(&mut self, mark: Mark, enters: bool) {
        if mark.class() != Class::Protected {
            return;
        }
        if let Some(count) = self.protected_at.get_mut(usize::from(mark.epoch())) {
            *count = if enters { *count + 1 } else { *count - 1 };
        }
        self.protected = if enters { self.protected + 1 } else { self.protected - 1 };
        while self.bottom != self.now && self.protected_in(self.bottom) == 0 {
            self.bottom = (self.bottom + 1) % EPOCHS;
        }
    }

    fn protected_in(&self, epoch: u16) -> u32 {
        self.protected_at.get(usize::from(epoch)).copied().unwrap_or(0)
    }

    /// Counts a touch; begins an epoch after as many as an epoch has.
    fn tick(&mut self, table: &mut Table) {
        self.ticks += 1;
        if self.ticks < self.count / EPOCHS_A_TURN {
            return;
        }
        self.ticks = 0;
        self.now = (self.now + 1) % EPOCHS;
        self.choice.set_count(self.full_count());
        let bound = |part: u16| table.slots() * usize::from(part) / usize::from(ROUND);
        for slot in bound(self.part)..bound(self.part + 1) {
            let Some(entry) = table.entry(slot) else { continue };
            let mark = Mark(entry.mark);
            if mark.class() != Class::Volatile && age(mark.epoch(), self.now) > AGE_MAX {
                let epoch = before(self.now, AGE_MAX);
                self.set(table, Table::at(slot), mark.with(mark.class(), epoch));
            }
        }
        let (part, parts) = (usize::from(self.part), usize::from(ROUND));
        self.ghost.forget_part(part, parts, self.now, AGE_MAX);
        self.part = (self.part + 1) % ROUND;
        if age(self.bottom, self.now) > AGE_MAX + ROUND {
            self.bottom = before(self.now, AGE_MAX + ROUND);
        }
    }

    /// Puts protected records back on probation while there are too many.
    fn demote(&mut self, table: &mut Table) {
        let Some(max) = self.protected_max() else { return };
        for _ in 0..DEMOTED_AT_ONCE {
            if self.protected <= max {
                return;
            }
            let Some(at) = self.longest_ago(table, Among::Protected) else { return };
            let mark = Mark(table.mark(at));
            self.set(table, at, mark.with(Class::Demoted, self.now));
        }
    }

    /// The one that was touched longest ago among the next ones that the hand meets.
    fn longest_ago(&mut self, table: &Table, among: Among) -> Option<At> {
        let hand = if among == Among::Probation { self.probation_hand } else { self.hand };
        let looks = match among {
            _ if self.count <= SMALL_COUNT => usize::MAX,
            Among::Probation => LOOKS_ON_PROBATION,
            _ => LOOKS,
        };
        let (slots, mut seen, mut slot) = (table.slots(), 0, hand);
        let mut oldest: Option<(u16, usize)> = None;
        for _ in 0..slots {
            slot = if slot + 1 >= slots { 0 } else { slot + 1 };
            let Some(entry) = table.entry(slot) else { continue };
            let mark = Mark(entry.mark);
            let counts = match (among, mark.class()) {
                (_, Class::Volatile) => false,
                (Among::All, _) => true,
                (Among::Protected, class) => class == Class::Protected,
                (Among::Probation, class) => class != Class::Protected,
            };
            if !counts {
                continue;
            }
            let age = age(mark.epoch(), self.now);
            if oldest.is_none_or(|(oldest, _)| age > oldest) {
                oldest = Some((age, slot));
            }
            seen += 1;
            if seen >= looks || among == Among::Protected && mark.epoch() == self.bottom {
                break;
            }
        }
        *(if among == Among::Probation { &mut self.probation_hand } else { &mut self.hand }) = slot;
        oldest.map(|(_, slot)| Table::at(slot))
    }

    /// Asserts that what is counted is what is in the table.
    #[cfg(test)]
    pub(crate) fn validate(&self, table: &Table) {
        let marks: Vec<Mark> =
            (0..table.slots()).filter_map(|slot| table.entry(slot)).map(|e| Mark(e.mark)).collect();
        let of = |class: Class| marks.iter().filter(|mark| mark.class() == class).count();
        assert_eq!(marks.len() - of(Class::Volatile), self.count);
        assert_eq!(of(Class::Protected), self.protected);
        let mut at = vec![0; usize::from(EPOCHS)];
        for mark in marks.iter().filter(|mark| mark.class() == Class::Protected) {
            at[usize::from(mark.epoch())] += 1;
            assert!(age(mark.epoch(), self.now) <= age(self.bottom, self.now), "below the bottom");
        }
        assert_eq!(at, self.protected_at);
    }
}
