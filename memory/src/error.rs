//! The one error type of the abstractions. Plain data only: names, numbers, never a value's bytes.
//! Knows no store; what a store's own library said is kept as the source.

use std::io;

use bytes::Bytes;

use crate::store::{Seq, Version};

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A guard did not hold, or other writers won too often. Nothing was changed.
    #[error("conflict at key {}: found version {found:?}", shown(key))]
    Conflict {
        /// The key whose guard did not hold.
        key: Bytes,
        /// The version that stands there; `None` when there is no live record.
        found: Option<Version>,
    },
    /// The token budget does not reach. Nothing was recorded.
    #[error("token budget: {needed} needed, {remaining} remaining")]
    BudgetExceeded {
        /// Tokens that were asked for.
        needed: u64,
        /// Tokens that are left.
        remaining: u64,
    },
    /// The table does not allow this transition. The state is as it was.
    #[error("no transition from {from:?} to {to:?}")]
    InvalidTransition {
        /// The current state.
        from: String,
        /// The state that was asked for.
        to: String,
    },
    /// The transition table has no such state.
    #[error("unknown state {0:?}")]
    UnknownState(String),
    /// A vector has another length than the memory it is for.
    #[error("vector of dimension {got}, expected {expected}")]
    Dimension {
        /// The dimension of the memory.
        expected: usize,
        /// The dimension that was given.
        got: usize,
    },
    /// A vector cannot be compared: it is zero, or not finite.
    #[error("invalid vector: {0}")]
    InvalidVector(&'static str),
    /// An argument is larger than allowed. Nothing was written.
    #[error("{what}: found {got}, at most {max}")]
    Limit {
        /// Which argument.
        what: &'static str,
        /// The largest that is accepted.
        max: u64,
        /// What was given.
        got: u64,
    },
    /// An argument makes no sense.
    #[error("invalid: {0}")]
    Invalid(&'static str),
    /// The changes asked for are no longer kept. Read the state anew and go on from `first`.
    #[error("changes before seq {} are no longer kept", first.0)]
    Truncated {
        /// The first change that is still kept.
        first: Seq,
    },
    /// It took longer than the caller allowed.
    #[error("timed out")]
    Timeout,
    /// The store was closed, or deleted what this handle was for.
    #[error("closed")]
    Closed,
    /// Stored bytes are not what this crate writes.
    #[error("corrupt {what}: {detail}")]
    Corrupt {
        /// Which structure.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// A value could not be encoded, or decoded into the type that was asked for.
    #[error("codec: {0}")]
    Codec(String),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What a store, an embedder or a summariser said.
    #[error("{0}")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the same call may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Timeout)
    }

    /// Wraps what another library said.
    pub fn backend(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(error.into())
    }

    /// Stored bytes that this crate did not write.
    pub(crate) fn corrupt(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Corrupt { what, detail: detail.into() }
    }

    /// Refuses `got` above `max`.
    pub(crate) fn check_limit(what: &'static str, got: usize, max: u64) -> Result<()> {
        let got = got as u64;
        if got > max { Err(Self::Limit { what, max, got }) } else { Ok(()) }
    }
}

impl From<terrace::Error> for Error {
    fn from(error: terrace::Error) -> Self {
        match error {
            terrace::Error::Closed => Self::Closed,
            terrace::Error::Limit { what, max, found } => Self::Limit { what, max, got: found },
            terrace::Error::Corrupt(damage) => Self::corrupt("record", damage.to_string()),
            other => Self::Backend(Box::new(other)),
        }
    }
}

/// A key as a person reads it, at most 64 bytes of it.
fn shown(key: &[u8]) -> String {
    let head = key.get(..64).unwrap_or(key);
    format!("\"{}\"{}", head.escape_ascii(), if key.len() > 64 { ".." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_key_and_how_much_and_no_value() {
        let conflict =
            Error::Conflict { key: Bytes::from_static(b"a\0b"), found: Some(Version(7)) };
        assert_eq!(
            conflict.to_string(),
            "conflict at key \"a\\x00b\": found version Some(Version(7))"
        );
        assert!(conflict.is_retryable());
        let long = Error::Conflict { key: Bytes::from(vec![b'x'; 1000]), found: None };
        assert!(long.to_string().len() < 120);
        let budget = Error::BudgetExceeded { needed: 7, remaining: 3 };
        assert_eq!(budget.to_string(), "token budget: 7 needed, 3 remaining");
        assert!(!budget.is_retryable());
    }

    #[test]
    fn an_error_of_the_engine_keeps_its_kind_and_its_text() {
        assert!(matches!(Error::from(terrace::Error::Closed), Error::Closed));
        let limit = terrace::Error::Limit { what: "key", max: 1, found: 2 };
        assert!(matches!(Error::from(limit), Error::Limit { what: "key", max: 1, got: 2 }));
        let full = terrace::Error::Full { doing: "put", what: "disk", used: 0, limit: 0 };
        let text = full.to_string();
        assert_eq!(Error::from(full).to_string(), text);
    }
}
