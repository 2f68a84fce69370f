//! A hybrid logical clock: wall time that never stands behind what was seen from others.
//! Pure; after Kulkarni, Demirbas and others, "Logical physical clocks", 2014.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::Millis;

/// The moment of a change, in one order with all others of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc {
    /// Wall time, or what was seen from others when that is later.
    pub at: Millis,
    /// Tells changes of one millisecond apart.
    pub count: u32,
    /// The node that made the change; decides between equals.
    pub node: String,
}

impl Hlc {
    /// The next moment of `node` after all that it has seen.
    pub(crate) fn next(seen: (Millis, u32), now: Millis, node: &str) -> Self {
        let (at, count) = match seen {
            (at, _) if at < now => (now, 0),
            (at, u32::MAX) => (Millis(at.0.saturating_add(1)), 0),
            (at, count) => (at, count + 1),
        };
        Self { at, count, node: node.to_owned() }
    }

    pub(crate) fn seen(&self) -> (Millis, u32) {
        (self.at, self.count)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}@{}", self.at.0, self.count, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_is_after_what_was_seen_also_when_the_clock_stands() {
        let one = Hlc::next((Millis(5), 3), Millis(9), "a");
        assert_eq!((one.at, one.count), (Millis(9), 0));
        let two = Hlc::next(one.seen(), Millis(2), "b");
        assert!(two > one);
        assert_eq!(two.to_string(), "9+1@b");
        assert!(
            Hlc::next((Millis(9), u32::MAX), Millis(9), "a")
                > Hlc::next((Millis(9), 7), Millis(9), "z")
        );
    }
}
