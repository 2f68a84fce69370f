//! The key at which a leaf begins: short ones lie where they are compared, not behind a pointer.
//! Knows bytes; knows nothing of leaves.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;

/// Bytes of a fence that needs no memory of its own: a key of 24 bytes behind its incarnation.
const SHORT_LEN: usize = 30;

/// A sort key.
#[derive(Debug, Clone)]
pub(crate) enum Fence {
    Short { len: u8, bytes: [u8; SHORT_LEN] },
    Long(Box<[u8]>),
}

impl Fence {
    /// Bytes of memory outside of the fence itself.
    pub(crate) fn charged_len(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long(bytes) => bytes.len() + 16,
        }
    }
}

impl From<&[u8]> for Fence {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_LEN];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(key);
                Self::Short { len, bytes }
            }
            _ => Self::Long(key.into()),
        }
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::Short { len: 0, bytes: [0; SHORT_LEN] }
    }
}

impl Deref for Fence {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Fence {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Fence {}

impl PartialOrd for Fence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fence {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_of_any_length_are_their_bytes_and_stand_in_their_order() {
        let keys: Vec<Vec<u8>> = (0..80).map(|len| vec![u8::from(len % 3 == 0); len]).collect();
        for a in &keys {
            let fence = Fence::from(&a[..]);
            assert_eq!(*fence, a[..]);
            assert_eq!(fence.charged_len() == 0, a.len() <= SHORT_LEN);
            for b in &keys {
                assert_eq!(fence.cmp(&Fence::from(&b[..])), a.cmp(b), "{a:?} {b:?}");
            }
        }
        assert!(Fence::default().is_empty());
        assert_eq!(size_of::<Fence>(), 32);
    }
}
