//! The name of a namespace, and what it keeps of its changes.
//! Knows names and numbers; knows nothing of any store.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::NS_LEN_MAX;

/// How much of a change log is kept. What is over one of the bounds goes, oldest first, some at a
/// time with each commit; the newest change always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// At most so many changes.
    pub count: u64,
    /// None older than this.
    pub age: Option<Duration>,
    /// At most so many bytes of keys.
    pub bytes: Option<u64>,
}

impl Default for LogRetention {
    fn default() -> Self {
        Self { count: 10_000, age: None, bytes: None }
    }
}

/// Whether a namespace keeps its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeLog {
    /// `changes` is [`Error::Invalid`]; a commit writes nothing besides its records.
    Off,
    /// Kept, within bounds.
    Keep(LogRetention),
}

/// A namespace: a set of keys with an order of their own. Two of the same name are the same,
/// whatever they say of the change log; use one setting for one name.
#[derive(Clone)]
pub struct Ns {
    name: Arc<str>,
    log: ChangeLog,
}

impl Ns {
    /// The namespace of this name, 1 to 256 bytes, with a change log of default retention.
    pub fn new(name: &str) -> Result<Self> {
        Error::check_limit("name of a namespace", name.len(), NS_LEN_MAX)?;
        if name.is_empty() {
            return Err(Error::Invalid("a namespace without a name"));
        }
        Ok(Self { name: name.into(), log: ChangeLog::Keep(LogRetention::default()) })
    }

    /// A name that this crate gives, without a change log.
    pub(crate) fn fixed(name: &'static str) -> Self {
        Self { name: name.into(), log: ChangeLog::Off }
    }

    /// The namespace `family` with one more part: `conversation` and `s1` make `conversation/s1`.
    /// Slashes and percent signs in the part are escaped, so that no two parts make one name.
    pub fn within(family: &str, part: &str) -> Result<Self> {
        if part.is_empty() {
            return Err(Error::Invalid("an empty id"));
        }
        let escaped = part.replace('%', "%25").replace('/', "%2F");
        Self::new(&format!("{family}/{escaped}"))
    }

    /// Without a change log.
    #[must_use]
    pub fn without_log(mut self) -> Self {
        self.log = ChangeLog::Off;
        self
    }

    /// With a change log within these bounds.
    #[must_use]
    pub fn with_log(mut self, retention: LogRetention) -> Self {
        self.log = ChangeLog::Keep(retention);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it keeps of its changes.
    pub fn log(&self) -> ChangeLog {
        self.log
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }
}

impl PartialEq for Ns {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Ns {}

impl Hash for Ns {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ns({:?})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_bounds_are_refused_and_parts_stay_apart() {
        assert!(matches!(Ns::new(""), Err(Error::Invalid(_))));
        assert!(matches!(Ns::new(&"x".repeat(257)), Err(Error::Limit { max: 256, .. })));
        assert!(matches!(Ns::within("a", ""), Err(Error::Invalid(_))));
        assert_ne!(Ns::within("a", "b/c").unwrap(), Ns::within("a/b", "c").unwrap());
        assert_ne!(Ns::within("a", "b%2Fc").unwrap(), Ns::within("a", "b/c").unwrap());
        assert_eq!(Ns::new("a").unwrap(), Ns::new("a").unwrap().without_log());
    }
}
