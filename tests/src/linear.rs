//! Is a recorded history of calls on single keys linearizable? The search of Wing and Gong (1993)
//! with Lowe's memory of what was tried (2017), one register a key, since linearizability is local.
//! Knows calls, their stamps and what they answered; knows nothing of a store.
//!
//! What keeps the search short: of all calls that may come next, a read that fits is taken at once
//! (whatever order works, works with it first), and no pair of calls placed and state of the
//! register is visited twice.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The end of a call that did not return: it may have happened at any time after its start, or not.
pub const NEVER: u64 = u64::MAX;

/// Pairs of (calls placed, state) that are remembered before the search gives up.
const TRIED_MAX: usize = 1 << 20;

/// The one counter that stamps the starts and ends of all calls of a history.
#[derive(Debug, Default)]
pub struct Stamps {
    next: AtomicU64,
}

impl Stamps {
    /// A moment later than all that were taken before.
    pub fn now(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a compare-and-swap expected. Values are numbers that each write has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No record.
    Absent,
    /// This value.
    Value(u64),
    /// The version with this sequence number, as an [`Action::Info`] saw it.
    Seq(u64),
}

/// What an update made of what it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// This value.
    Put(u64),
    /// No record.
    Delete,
    /// What was there.
    Keep,
}

/// A call with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read this value.
    Get(Option<u64>),
    /// Read this sequence number.
    Info(Option<u64>),
    /// Wrote this value.
    Put(u64),
    /// Deleted; whether it was there.
    Delete(bool),
    /// Wrote the same value anew; whether it was there.
    Touch(bool),
    /// Removed every key.
    Clear,
    /// Saw and made, as one step.
    Update {
        /// What the last run of the closure saw.
        seen: Option<u64>,
        /// What it made of it.
        made: Made,
    },
    /// Compared and swapped, as one step.
    Swap {
        /// What was expected.
        expected: Expected,
        /// What was to be there then; `None` deletes.
        new: Option<u64>,
        /// Whether it was as expected.
        swapped: bool,
    },
}

impl Action {
    /// Whether a call with this answer changes nothing wherever it is placed. One that only happens
    /// to change nothing in one place, a clear of what is absent, may be needed in another.
    fn never_changes(self) -> bool {
        match self {
            Self::Get(_) | Self::Info(_) | Self::Delete(false) | Self::Touch(false) => true,
            Self::Update { made, .. } => made == Made::Keep,
            Self::Swap { swapped, .. } => !swapped,
            Self::Put(_) | Self::Delete(true) | Self::Touch(true) | Self::Clear => false,
        }
    }
}

/// One call of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Whose call.
    pub thread: usize,
    /// On which key.
    pub key: u64,
    /// Stamp before it was made.
    pub start: u64,
    /// Stamp after it returned, or [`NEVER`].
    pub end: u64,
    /// What it did and answered. The answer of a call that never returned counts for nothing.
    pub action: Action,
}

/// Why a history is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// No order of the calls on one key explains their answers.
    NotLinearizable {
        /// The key.
        key: u64,
        /// The last calls of the longest order that works, oldest first.
        before: Vec<Call>,
        /// What is there behind them.
        value: Option<u64>,
        /// The calls that may come next, none of which leads to an end.
        next: Vec<Call>,
    },
    /// The search was given up: too many calls at one time.
    Undecided {
        /// The key.
        key: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable { key, before, value, next } => {
                writeln!(f, "key {key} is not linearizable; the longest order that works ends")?;
                for call in before {
                    writeln!(f, "  {call}")?;
                }
                writeln!(f, "with {value:?}; next could be, and does not fit,")?;
                next.iter().try_for_each(|call| writeln!(f, "  {call}"))
            }
            Self::Undecided { key } => write!(f, "key {key}: too many calls at one time"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, start, end, action, .. } = self;
        write!(f, "{start:>8} to {end:>8} thread {thread}: {action:?}")
    }
}

/// Whether every key's calls can be put in an order that respects real time and explains every
/// answer, each key absent at first. A [`Action::Clear`] belongs in the history of every key.
///
/// # Errors
///
/// The first key, by number, for which there is no such order.
pub fn check(history: &[Call]) -> Result<(), Violation> {
    let mut keys: BTreeMap<u64, Vec<Call>> = BTreeMap::new();
    for call in history {
        keys.entry(call.key).or_default().push(*call);
    }
    keys.into_iter().try_for_each(|(key, calls)| Search::new(key, calls).run())
}

/// One key as the order so far left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Register {
    value: Option<u64>,
    /// Of the version that is there, once somebody saw it.
    seq: Option<u64>,
    /// The highest that was seen: later versions are above.
    seq_seen: u64,
}

impl Register {
    fn with(self, value: Option<u64>) -> Self {
        Self { value, seq: None, ..self }
    }

    /// The register behind a read of this sequence number; `None` when it cannot be.
    fn known_as(self, seq: u64) -> Option<Self> {
        self.value?;
        match self.seq {
            Some(known) => (known == seq).then_some(self),
            None if seq > self.seq_seen => Some(Self { seq: Some(seq), seq_seen: seq, ..self }),
            None => None,
        }
    }

    /// The register behind a call; `None` when the call's answer does not fit.
    fn after(self, call: &Call) -> Option<Self> {
        let asked = call.end != NEVER;
        let there = self.value.is_some();
        match call.action {
            Action::Get(value) => (!asked || value == self.value).then_some(self),
            Action::Info(None) => (!asked || !there).then_some(self),
            Action::Info(Some(seq)) if asked => self.known_as(seq),
            Action::Info(Some(_)) => Some(self),
            Action::Put(value) => Some(self.with(Some(value))),
            Action::Delete(was) => (!asked || was == there).then(|| self.with(None)),
            Action::Touch(was) => (!asked || was == there).then(|| self.with(self.value)),
            Action::Clear => Some(self.with(None)),
            Action::Update { seen, made } => {
                let made = match made {
                    Made::Put(value) => self.with(Some(value)),
                    Made::Delete => self.with(None),
                    Made::Keep => self,
                };
                (seen == self.value).then_some(made)
            }
            Action::Swap { expected, new, swapped: true } => {
                let fits = match expected {
                    Expected::Absent => (!there).then_some(self),
                    Expected::Value(value) => (self.value == Some(value)).then_some(self),
                    Expected::Seq(seq) => self.known_as(seq),
                };
                fits.map(|fits| fits.with(new))
            }
            Action::Swap { expected, swapped: false, .. } => {
                let differs = match expected {
                    Expected::Absent => there,
                    Expected::Value(value) => self.value != Some(value),
                    Expected::Seq(seq) => self.seq != Some(seq),
                };
                (!asked || differs).then_some(self)
            }
        }
    }
}

/// A call that was placed, and the register before it.
struct Placed {
    index: usize,
    before: Register,
    /// What may be placed behind it and was not tried yet, best last.
    untried: Vec<usize>,
}

struct Search {
    key: u64,
    /// By their starts.
    calls: Vec<Call>,
    placed: Vec<bool>,
    /// All below are placed.
    first: usize,
    /// None from here on was ever placed.
    top: usize,
    /// Calls that must still be placed.
    missing: usize,
    register: Register,
    order: Vec<Placed>,
    tried: HashSet<(usize, Vec<u64>, Register)>,
    longest: (Vec<usize>, Register),
}

impl Search {
    fn new(key: u64, mut calls: Vec<Call>) -> Self {
        calls.sort_by_key(|call| call.start);
        let missing = calls.iter().filter(|call| call.end != NEVER).count();
        Self {
            key,
            placed: vec![false; calls.len()],
            calls,
            first: 0,
            top: 0,
            missing,
            register: Register::default(),
            order: Vec::new(),
            tried: HashSet::new(),
            longest: (Vec::new(), Register::default()),
        }
    }

    fn run(mut self) -> Result<(), Violation> {
        let mut untried = self.candidates();
        loop {
            if self.missing == 0 {
                return Ok(());
            }
            if self.tried.len() > TRIED_MAX {
                return Err(Violation::Undecided { key: self.key });
            }
            let Some(index) = untried.pop() else {
                match self.take_back() {
                    Some(above) => untried = above,
                    None => return Err(self.violation()),
                }
                continue;
            };
            let after = self.calls.get(index).and_then(|call| self.register.after(call));
            let Some(after) = after else { continue };
            self.place(index, after, std::mem::take(&mut untried));
            if self.tried.insert(self.fingerprint()) {
                untried = self.candidates();
            } else if let Some(above) = self.take_back() {
                untried = above;
            }
        }
    }

    fn place(&mut self, index: usize, after: Register, untried: Vec<usize>) {
        self.order.push(Placed { index, before: self.register, untried });
        self.mark(index, true);
        self.register = after;
        if self.order.len() > self.longest.0.len() {
            self.longest = (self.order.iter().map(|one| one.index).collect(), after);
        }
    }

    /// Undoes the last call; answers what was not tried in its stead.
    fn take_back(&mut self) -> Option<Vec<usize>> {
        let last = self.order.pop()?;
        self.mark(last.index, false);
        self.register = last.before;
        Some(last.untried)
    }

    fn mark(&mut self, index: usize, placed: bool) {
        if let Some(mark) = self.placed.get_mut(index) {
            *mark = placed;
        }
        if self.calls.get(index).is_some_and(|call| call.end != NEVER) {
            self.missing = if placed { self.missing - 1 } else { self.missing + 1 };
        }
        if placed {
            self.top = self.top.max(index + 1);
            let rest = self.placed.iter().skip(self.first);
            self.first += rest.take_while(|placed| **placed).count();
        } else {
            self.first = self.first.min(index);
        }
    }

    /// The calls that may come next: none that is not placed ended before they started. Best last:
    /// one that changes nothing and fits comes alone, else those that end first.
    fn candidates(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut end_min = NEVER;
        for (index, call) in self.calls.iter().enumerate().skip(self.first) {
            if call.start > end_min {
                break;
            }
            if self.placed.get(index) == Some(&false) {
                end_min = end_min.min(call.end);
                found.push((call, index));
            }
        }
        found.retain(|(call, _)| call.start < end_min);
        let idle = |call: &Call| {
            call.end != NEVER
                && call.action.never_changes()
                && self.register.after(call) == Some(self.register)
        };
        if let Some((_, index)) = found.iter().find(|(call, _)| idle(call)) {
            return vec![*index];
        }
        found.sort_by_key(|(call, _)| std::cmp::Reverse(call.end));
        found.into_iter().map(|(_, index)| index).collect()
    }

    /// What tells this place of the search from all others: calls placed behind the first that is
    /// not, as bits, and the register.
    fn fingerprint(&self) -> (usize, Vec<u64>, Register) {
        let mut words = Vec::new();
        let ahead = self.placed.iter().take(self.top).skip(self.first);
        for (bit, placed) in ahead.enumerate() {
            if *placed {
                words.resize(bit / 64 + 1, 0_u64);
                words.iter_mut().skip(bit / 64).for_each(|word| *word |= 1 << (bit % 64));
            }
        }
        (self.first, words, self.register)
    }

    fn violation(mut self) -> Violation {
        let (order, register) = std::mem::take(&mut self.longest);
        self.placed.fill(false);
        self.first = 0;
        for index in &order {
            self.mark(*index, true);
        }
        self.register = register;
        let call = |index: &usize| self.calls.get(*index).copied();
        let before = order.iter().skip(order.len().saturating_sub(12)).filter_map(call).collect();
        let mut next = self.candidates();
        next.reverse();
        let next = next.iter().filter_map(call).collect();
        Violation::NotLinearizable { key: self.key, before, value: register.value, next }
    }
}

#[cfg(test)]
mod tests;
