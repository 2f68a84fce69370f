//! The bytes of a value, and what they pin: a segment's map, an archive's map, or own memory.
//! Knows where the bytes live; knows nothing of keys, tiers or deadlines.

pub(crate) mod pins;

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::value::pins::{Pin, Pins, Site};

/// Something that holds bytes in place for as long as it lives.
pub(crate) trait Bytes: Send + Sync {
    fn bytes(&self, range: Range<usize>) -> &[u8];

    /// What holds the same bytes and is counted at a place in the program; `None` where they are
    /// not counted.
    fn pin(&self, _pins: &Pins, _site: Site) -> Option<Arc<Pin>> {
        None
    }
}

/// The value of a record: shared, immutable bytes. Cloning is cheap.
///
/// A value from the warm tier borrows the mapped segment, without a copy; it pins that one file's
/// space, not the store, until the last clone is dropped. It stays valid after the store is closed.
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Mapped { owner: Arc<dyn Bytes>, range: Range<usize> },
    Owned(Arc<[u8]>),
}

impl Value {
    pub(crate) fn mapped(owner: Arc<dyn Bytes>, range: Range<usize>) -> Self {
        Self(Repr::Mapped { owner, range })
    }

    /// The same value, counted at a place in the program if it borrows from a file.
    pub(crate) fn counted(self, pins: &Pins, site: Site) -> Self {
        match self.0 {
            Repr::Mapped { owner, range } => match owner.pin(pins, site) {
                Some(pin) => Self::mapped(pin, range),
                None => Self(Repr::Mapped { owner, range }),
            },
            owned @ Repr::Owned(_) => Self(owned),
        }
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(Repr::Owned(Arc::from(bytes)))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Repr::Owned(Arc::from(bytes)))
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Mapped { owner, range } => owner.bytes(range.clone()),
            Repr::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

/// Shows the length and where the bytes live, never the bytes.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.0 {
            Repr::Mapped { .. } => "mapped",
            Repr::Owned(_) => "owned",
        };
        write!(f, "Value({} bytes, {place})", self.len())
    }
}
