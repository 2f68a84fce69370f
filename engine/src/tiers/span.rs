//! What a walk goes over: a range of keys, as a program names it and as the tiers order it.
//! Knows keys, incarnations and moments; knows nothing of records or of where they are.

use std::ops::{Bound, Range, RangeBounds};

use crate::format::block::put_sort_key;
use crate::ids::{Incarnation, Seq};
use crate::key::Key;

/// Which way a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// What a walk goes over.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub incarnation: Incarnation,
    pub moment: Seq,
    /// Sort keys: from here on, and below there.
    pub keys: Range<Vec<u8>>,
    /// Values are wanted; else keys alone, and no value is read.
    pub values: bool,
}

/// Where a walk goes on and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub from: Bound<Key>,
    pub to: Bound<Key>,
}

impl KeyRange {
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let behind = match &self.from {
            Bound::Included(from) => key >= &**from,
            Bound::Excluded(from) => key > &**from,
            Bound::Unbounded => true,
        };
        let before = match &self.to {
            Bound::Included(to) => key <= &**to,
            Bound::Excluded(to) => key < &**to,
            Bound::Unbounded => true,
        };
        behind && before
    }
    /// A range as a program gives it.
    pub(crate) fn of<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Self {
        let bound = |bound: Bound<&K>| bound.map(|key| Key::from(key.as_ref()));
        Self { from: bound(range.start_bound()), to: bound(range.end_bound()) }
    }

    /// From the prefix up to the first key behind all that begin with it.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        let to = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(Key::from(&end[..]))
            }
            None => Bound::Unbounded,
        };
        Self { from: Bound::Included(Key::from(prefix)), to }
    }

    /// The sort keys that the range covers.
    pub(crate) fn sort_keys(&self, incarnation: Incarnation) -> Range<Vec<u8>> {
        let behind = |key: &[u8]| {
            let mut bound = sort_key(incarnation, key);
            bound.push(0);
            bound
        };
        let start = match &self.from {
            Bound::Included(key) => sort_key(incarnation, key),
            Bound::Excluded(key) => behind(key),
            Bound::Unbounded => sort_key(incarnation, &[]),
        };
        let end = match &self.to {
            Bound::Included(key) => behind(key),
            Bound::Excluded(key) => sort_key(incarnation, key),
            Bound::Unbounded => sort_key(Incarnation(incarnation.0.saturating_add(1)), &[]),
        };
        start..end
    }
}

/// Whether the window covers this key.
pub(crate) fn is_inside(incarnation: Incarnation, key: &[u8], window: &Range<Vec<u8>>) -> bool {
    let compare = |bound: &[u8]| {
        let (prefix, rest) = bound.split_at_checked(4).unwrap_or((bound, &[]));
        incarnation.0.to_be_bytes().as_slice().cmp(prefix).then_with(|| key.cmp(rest))
    };
    compare(&window.start).is_ge() && compare(&window.end).is_lt()
}

pub(crate) fn sort_key(incarnation: Incarnation, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 5);
    put_sort_key(&mut out, incarnation, key);
    out
}
