//! Searches for several tags in one view of the point index: homes are asked for ahead, and whether
//! a miss counts is asked once.
//! Knows tags; knows nothing of keys or records.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::Guard;

use crate::warm::index::bucket::IndexEntry;
use crate::warm::index::point::{PointIndex, View};

/// Searches for several tags in one view of the index.
#[derive(Debug)]
pub(crate) struct Searches<'i> {
    index: &'i PointIndex,
    view: Guard<Arc<View>>,
}

impl Searches<'_> {
    /// Asks for the home of a tag, without waiting for it.
    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        self.view.table(tag).prefetch(tag);
    }

    /// The first entry with the tag, which is touched: nearly always the only one.
    #[inline]
    pub(crate) fn first(&self, tag: u32) -> Option<IndexEntry> {
        let table = self.view.table(tag);
        let Ok(found) = table.find(tag, |_| Ok::<_, Infallible>(true));
        let found = found?;
        if !found.entry.touched {
            table.touch(&found);
        }
        Some(found.entry)
    }

    /// Hands all entries with the tag to `each`, and touches them.
    pub(crate) fn each(&self, tag: u32, each: impl FnMut(&IndexEntry)) {
        self.view.table(tag).visit(tag, true, each);
    }

    /// Whether a tag that had no entry was in the index at no time since this began.
    pub(crate) fn misses_count(&self) -> bool {
        self.view.old.is_none() && Arc::ptr_eq(&self.view, &self.index.view.load())
    }
}

impl PointIndex {
    /// Searches for several tags, all in the view of now.
    pub(crate) fn searches(&self) -> Searches<'_> {
        Searches { index: self, view: self.view.load() }
    }
}
