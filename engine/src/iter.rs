//! The ordered walk over a keyspace: keys a bounded piece at a time, values one by one.
//! Holds no lock and pins nothing between two items.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::error::Result;
use crate::key::Key;
use crate::reader::Reader;
use crate::tiers::scan::KeyRange;
use crate::value::Value;

/// Keys that are collected at a time.
const PIECE: usize = 16 * 1024;
/// Keys that the first, cheap piece collects.
const PIECE_FIRST: usize = 256;

/// Keys of a range that may be there, in order.
#[derive(Debug)]
struct Walk {
    reader: Reader,
    range: KeyRange,
    keys: VecDeque<Key>,
    piece: usize,
    more: bool,
}

impl Walk {
    fn new(reader: Reader, range: KeyRange) -> Self {
        Self { reader, range, keys: VecDeque::new(), piece: PIECE_FIRST, more: true }
    }

    fn next(&mut self) -> Result<Option<Key>> {
        while self.keys.is_empty() && self.more {
            self.fill()?;
        }
        Ok(self.keys.pop_front())
    }

    fn fill(&mut self) -> Result<()> {
        let tiers = &self.reader.inner.tiers;
        tiers.check_open()?;
        let state = &self.reader.state;
        let incarnation = state.incarnation()?;
        let (keys, more) = if state.volatile {
            tiers.hot.keys_piece(incarnation, &self.range.from, &self.range.to, self.piece)
        } else {
            tiers.keys_piece(incarnation, &self.range, self.piece)?
        };
        if let Some(last) = keys.last() {
            self.range.from = Bound::Excluded(last.clone());
        }
        self.more = more;
        self.keys = keys.into();
        self.piece = PIECE;
        Ok(())
    }
}

/// Records in order of their keys. An error is an item; the walk goes on behind it.
#[derive(Debug)]
pub struct Iter {
    walk: Walk,
    done: bool,
}

impl Iter {
    pub(crate) fn new(reader: Reader, range: KeyRange) -> Self {
        Self { walk: Walk::new(reader, range), done: false }
    }
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let key = match self.walk.next() {
                Ok(Some(key)) => key,
                Ok(None) => break,
                Err(error) => {
                    // What lies ahead could not be collected: the walk ends with the error.
                    self.done = true;
                    return Some(Err(error));
                }
            };
            match self.walk.reader.get(&key) {
                Ok(Some(value)) => return Some(Ok((key, value))),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// Keys in order.
#[derive(Debug)]
pub struct Keys {
    walk: Walk,
    done: bool,
}

impl Keys {
    pub(crate) fn new(reader: Reader, range: KeyRange) -> Self {
        Self { walk: Walk::new(reader, range), done: false }
    }
}

impl Iterator for Keys {
    type Item = Result<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let key = match self.walk.next() {
                Ok(Some(key)) => key,
                Ok(None) => break,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            match self.walk.reader.read(&key, |_| (), |_| ()) {
                Ok(Some(())) => return Some(Ok(key)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}
