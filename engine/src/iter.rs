//! The ordered walk over a keyspace as a program holds it: both ends, one moment, `Result` items.
//! Thin: what is in order and what a key holds, the tiers say.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::reader::View;
use crate::tiers::span::{Direction, KeyRange, Span};
use crate::tiers::walk::{Row, Walk};
use crate::value::Value;

/// Keys of a keyspace without order that are collected at a time.
const PIECE: usize = 16 * 1024;

/// Both directions of a walk over keys that are kept in order.
#[derive(Debug)]
struct Ordered {
    span: Span,
    front: Box<Walk>,
    /// Made when it is first asked for.
    back: Option<Box<Walk>>,
    /// Sort keys: the last one given from the front, and from the back; empty for none.
    given_front: Vec<u8>,
    given_back: Vec<u8>,
}

/// Both directions of a walk over keys that are collected a piece at a time.
#[derive(Debug)]
struct Listed {
    range: KeyRange,
    front: VecDeque<Key>,
    back: VecDeque<Key>,
}

#[derive(Debug)]
enum Source {
    Ordered(Ordered),
    Listed(Listed),
}

/// A walk that begins, goes on, or has ended.
#[derive(Debug)]
enum State {
    Walking(View, Source),
    Failed(Error),
    Ended,
}

/// What one step gives: a row of the ordered walk, or a record that was read by its key.
enum Item<'i> {
    Row(Row<'i>),
    Read(Key, Value),
}

fn to_pair(item: &Item<'_>, view: &View) -> Result<(Key, Value)> {
    match item {
        Item::Row(row) => row.to_pair(view.tiers(), view.site()),
        Item::Read(key, value) => Ok((key.clone(), value.clone())),
    }
}

fn to_key(item: &Item<'_>, _view: &View) -> Result<Key> {
    match item {
        Item::Row(row) => row.to_key(),
        Item::Read(key, _) => Ok(key.clone()),
    }
}

impl Item<'_> {
    fn read<R>(&self, read: impl FnOnce(&[u8], &[u8]) -> R) -> Result<R> {
        match self {
            Self::Row(row) => row.read(read),
            Self::Read(key, value) => Ok(read(key, value)),
        }
    }
}

/// What all walks share.
#[derive(Debug)]
struct Cursor(State);

impl Cursor {
    fn new(view: Result<View>, range: KeyRange, values: bool) -> Self {
        let view = match view {
            Ok(view) => view,
            Err(error) => return Self(State::Failed(error)),
        };
        let source = match view.moment() {
            Some(moment) if !view.state().unordered => {
                view.tiers().sort_all();
                let keys = range.sort_keys(view.incarnation);
                let span = Span { incarnation: view.incarnation, moment, keys, values };
                Source::Ordered(Ordered {
                    front: Walk::begin(view.tiers(), &span, Direction::Forward),
                    back: None,
                    span,
                    given_front: Vec::new(),
                    given_back: Vec::new(),
                })
            }
            _ => Source::Listed(Listed { range, front: VecDeque::new(), back: VecDeque::new() }),
        };
        Self(State::Walking(view, source))
    }

    /// Hands what lies ready of an ordered walk to `each`. What is handed out here is not noted as
    /// given, so a walk from both ends has nothing ready.
    fn run(
        &mut self,
        each: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match &mut self.0 {
            State::Walking(view, Source::Ordered(ordered)) if ordered.given_back.is_empty() => {
                ordered.front.run(view.tiers(), &ordered.span, each)
            }
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    /// Hands the next item of this direction to `take`; `None` at the end.
    fn step<R>(
        &mut self,
        direction: Direction,
        take: impl FnOnce(&Item<'_>, &View) -> Result<R>,
    ) -> Option<Result<R>> {
        let State::Walking(view, source) = &mut self.0 else {
            return match std::mem::replace(&mut self.0, State::Ended) {
                State::Failed(error) => Some(Err(error)),
                _ => None,
            };
        };
        let stepped = view.check().and_then(|()| match source {
            Source::Ordered(ordered) => ordered.step(view, direction),
            Source::Listed(listed) => listed.step(view, direction),
        });
        match stepped {
            Ok(Some(item)) => Some(take(&item, view)),
            Ok(None) => {
                self.end();
                None
            }
            Err(Error::Corrupt(damage)) => Some(Err(Error::Corrupt(damage))),
            Err(error) => {
                self.end();
                Some(Err(error))
            }
        }
    }
}

impl Cursor {
    /// Lets go of everything, and leaves the walks' memory to the next ones.
    fn end(&mut self) {
        let state = std::mem::replace(&mut self.0, State::Ended);
        if let State::Walking(view, Source::Ordered(ordered)) = state {
            ordered.front.end(view.tiers());
            if let Some(back) = ordered.back {
                back.end(view.tiers());
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Ordered {
    fn step(&mut self, view: &View, direction: Direction) -> Result<Option<Item<'_>>> {
        let (walk, given, other) = match direction {
            Direction::Forward => (&mut self.front, &mut self.given_front, &self.given_back),
            Direction::Backward => {
                let made = || Walk::begin(view.tiers(), &self.span, Direction::Backward);
                let back = self.back.get_or_insert_with(made);
                (back, &mut self.given_back, &self.given_front)
            }
        };
        let Some(row) = walk.next(view.tiers(), &self.span)? else { return Ok(None) };
        let Some(key) = row.key() else { return Ok(Some(Item::Row(row))) };
        let met = other.get(4..).is_some_and(|other| match direction {
            Direction::Forward => key >= other,
            Direction::Backward => key <= other,
        });
        if met {
            return Ok(None);
        }
        given.clear();
        given.extend_from_slice(&self.span.incarnation.0.to_be_bytes());
        given.extend_from_slice(key);
        Ok(Some(Item::Row(row)))
    }
}

impl Listed {
    fn step(&mut self, view: &View, direction: Direction) -> Result<Option<Item<'_>>> {
        loop {
            let keys = match direction {
                Direction::Forward => &mut self.front,
                Direction::Backward => &mut self.back,
            };
            let Some(key) = keys.pop_front() else {
                let (piece, _) = view.keys_piece(&self.range, PIECE, direction)?;
                if piece.is_empty() {
                    return Ok(None);
                }
                keys.extend(piece);
                continue;
            };
            if !self.range.contains(&key) {
                return Ok(None);
            }
            match direction {
                Direction::Forward => self.range.from = Bound::Excluded(key.clone()),
                Direction::Backward => self.range.to = Bound::Excluded(key.clone()),
            }
            if let Some((value, _)) = view.get_versioned(&key, view.site())? {
                return Ok(Some(Item::Read(key, value)));
            }
        }
    }
}

/// Records in order of their keys, from both ends, as of the moment when it was made.
///
/// Changes made since are not seen; a record that expires meanwhile is not given. It pins old
/// versions of records that are overwritten while it lives, so drop it when done. A damaged record
/// is an item, [`Error::Corrupt`], and the walk goes on behind it; after any other error it ends.
#[derive(Debug)]
pub struct Iter(Cursor);

impl Iter {
    pub(crate) fn new(view: Result<View>, range: KeyRange) -> Self {
        Self(Cursor::new(view, range, true))
    }

    /// Hands each record to `each` without a copy, until it breaks.
    pub(crate) fn each(
        mut self,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        if let State::Walking(_, Source::Ordered(ordered)) = &mut self.0.0 {
            ordered.front.hurry();
        }
        while let Some(flow) = self.0.step(Direction::Forward, |item, _| item.read(&mut each)) {
            if flow?.is_break() || self.0.run(&mut each)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Forward, to_pair)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Backward, to_pair)
    }
}

/// Keys in order, from both ends, as of the moment when it was made. Reads no values of the log.
#[derive(Debug)]
pub struct Keys(Cursor);

impl Keys {
    pub(crate) fn new(view: Result<View>, range: KeyRange) -> Self {
        Self(Cursor::new(view, range, false))
    }
}

impl Iterator for Keys {
    type Item = Result<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Forward, to_key)
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Backward, to_key)
    }
}
