//! What a store may show after a crash: every state that the operations led through, and how far
//! they were done and durable. Knows keys and digests; knows nothing of disks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use terrace::{Db, Result};

/// The keyspaces of a run, by their number.
pub(crate) const KEYSPACES: [&str; 2] = ["left", "right"];
/// Keys of one keyspace.
pub(crate) const KEYS: u8 = 24;

/// Keyspace and key to the digest of the value, and its deadline.
pub(crate) type State = BTreeMap<(usize, u8), (u64, Option<u64>)>;

/// The bytes of a key.
pub(crate) fn key(number: u8) -> Vec<u8> {
    let mut key = vec![b'k'; 1 + usize::from(number % 5)];
    key.push(number);
    key
}

fn number(key: &[u8]) -> u8 {
    key.last().copied().unwrap_or(u8::MAX)
}

/// Length and checksum.
pub(crate) fn digest(value: &[u8]) -> u64 {
    (value.len() as u64) << 32 | u64::from(crc32fast::hash(value))
}

/// The states since the last opening.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    states: Vec<State>,
    /// The store's `seq` after each state; `u64::MAX` until it is known.
    seqs: Vec<u64>,
    /// States up to this one were acknowledged.
    done: usize,
    /// States up to this one are on stable storage.
    durable: usize,
}

impl History {
    /// Nothing but this state, which is durable.
    pub(crate) fn of(state: State) -> Self {
        Self { states: vec![state], seqs: vec![0], done: 0, durable: 0 }
    }

    pub(crate) fn last(&self) -> State {
        self.states.last().cloned().unwrap_or_default()
    }

    /// An operation begins that leads to this state.
    pub(crate) fn begin(&mut self, state: State) {
        self.states.push(state);
        self.seqs.push(u64::MAX);
    }

    /// The operation was refused; nothing has changed.
    pub(crate) fn take_back(&mut self, len: usize) {
        self.states.truncate(len);
        self.seqs.truncate(len);
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// Everything that was begun is done.
    pub(crate) fn finish(&mut self, db: &Db) {
        let (last, durable) = (db.last_seq(), db.durable_seq());
        self.seqs.iter_mut().for_each(|seq| *seq = (*seq).min(last));
        self.done = self.states.len() - 1;
        let reached = self.seqs.iter().rposition(|&seq| seq <= durable).unwrap_or(0);
        self.durable = self.durable.max(reached);
    }

    /// How far the work is done and durable, to be set back: what is cut is the past.
    pub(crate) fn reached(&self) -> (usize, usize) {
        (self.done, self.durable)
    }

    /// Everything that was begun, as of when it had come so far.
    pub(crate) fn as_of(&self, (done, durable): (usize, usize)) -> Self {
        Self { done, durable, ..self.clone() }
    }

    /// What a power cut may leave now.
    pub(crate) fn after_power_cut(&self) -> Range<usize> {
        self.durable..self.states.len()
    }

    /// What a killed process may leave now.
    pub(crate) fn after_kill(&self) -> Range<usize> {
        self.done..self.states.len()
    }

    /// The history of the next process, which found the state `at`. What the last one did not make
    /// durable may still be lost to a power cut if it was killed, and is gone if the power went.
    pub(crate) fn onward(&self, at: usize, killed: bool) -> Self {
        let first = if killed { self.durable.min(at) } else { at };
        let states = self.states.get(first..=at).unwrap_or_default().to_vec();
        let (seqs, done) = (vec![u64::MAX; states.len()], states.len().saturating_sub(1));
        Self { states, seqs, done, durable: 0 }
    }

    /// The newest state within `range` that a store with this content shows at `now_ms`.
    pub(crate) fn find(&self, content: &State, range: Range<usize>, now_ms: u64) -> Option<usize> {
        range.rev().find(|&at| self.states.get(at).is_some_and(|s| shows(s, content, now_ms)))
    }

    /// What tells a content that no state explains from the state that is closest to it.
    pub(crate) fn difference(&self, content: &State, now_ms: u64) -> String {
        let written = |key: &(usize, u8), digest: Option<u64>| {
            let is_it = |s: &State| s.get(key).map(|(found, _)| *found) == digest;
            digest.map(|_| self.states.iter().position(is_it))
        };
        let differing = |state: &State| -> Vec<String> {
            let keys: BTreeSet<(usize, u8)> = state.keys().chain(content.keys()).copied().collect();
            let mut found = Vec::new();
            for key in keys {
                let alive = |(_, end): &&(u64, Option<u64>)| end.is_none_or(|end| end > now_ms);
                let expected = state.get(&key).filter(alive).map(|(digest, _)| *digest);
                let shown = content.get(&key).map(|(digest, _)| *digest);
                if expected != shown {
                    found.push(format!("{key:?} is of state {:?}", written(&key, shown)));
                }
            }
            found
        };
        let all = self.states.iter().map(differing).enumerate();
        let closest = all.min_by_key(|(_, keys)| keys.len());
        closest.map_or_else(String::new, |(at, keys)| {
            let shown: Vec<_> = keys.iter().take(5).collect();
            format!(
                "closest to state {at} of {}: {} keys differ: {shown:?}",
                self.len(),
                keys.len()
            )
        })
    }
}

/// Whether a store that is in `state` shows `content`.
pub(crate) fn shows(state: &State, content: &State, now_ms: u64) -> bool {
    let alive = state.iter().filter(|(_, (_, end))| end.is_none_or(|end| end > now_ms));
    alive
        .map(|(key, (digest, _))| (key, digest))
        .eq(content.iter().map(|(key, (digest, _))| (key, digest)))
}

/// Everything that a store shows, without deadlines.
pub(crate) fn content(db: &Db) -> Result<State> {
    let known = db.keyspaces()?;
    let mut content = State::new();
    for (at, name) in KEYSPACES.iter().enumerate() {
        if !known.iter().any(|known| known == name) {
            continue;
        }
        for item in &db.keyspace(name)? {
            let (key, value) = item?;
            content.insert((at, number(&key)), (digest(&value), None));
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_shown_without_what_has_expired_and_found_only_in_its_range() {
        let one = State::from([((0, 1), (7, None)), ((0, 2), (8, Some(100)))]);
        let shown = State::from([((0, 1), (7, None))]);
        assert!(shows(&one, &shown, 100) && !shows(&one, &shown, 99));
        let mut history = History::of(State::new());
        history.begin(one);
        history.begin(State::new());
        assert_eq!(history.find(&shown, 0..3, 100), Some(1));
        assert_eq!(history.find(&shown, 2..3, 100), None);
        assert_eq!(history.find(&State::new(), 0..3, 100), Some(2));
        assert_eq!((history.after_power_cut(), history.after_kill()), (0..3, 0..3));
    }
}
