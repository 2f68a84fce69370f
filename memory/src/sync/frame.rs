//! What nodes say to each other, as bytes: JSON, bounded before it is read.
//! Pure; knows nothing of stores or of how bytes travel.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sync::hlc::Hlc;

/// The longest frame, in bytes. One value and what stands around it fit.
pub const FRAME_LEN_MAX: u64 = 8 << 20;
/// Changes of one frame.
pub(crate) const ENTRIES_MAX: usize = 256;
/// Bytes of keys and values after which a frame takes no more.
pub(crate) const ENTRIES_LEN: usize = 256 << 10;
/// Parts of a digest.
pub(crate) const BUCKETS: usize = 256;

/// A change: what a key holds since when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub key: String,
    pub hlc: Hlc,
    /// JSON as text, so that its nesting is its own; `None` when the key was deleted.
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// What changed at the sender behind `after`, up to `upto`. Both 0: a repair, outside of the
    /// order.
    Changes {
        incarnation: u64,
        /// What the sender was told that the receiver has.
        acked: u64,
        after: u64,
        upto: u64,
        changes: Vec<Change>,
    },
    /// The sender has all up to here of what the receiver has sent.
    Ack {
        /// The sender's store.
        incarnation: u64,
        /// The store whose order is meant.
        of: u64,
        upto: u64,
    },
    /// Sums over all keys; where they differ, something is missing.
    Digest { sums: Vec<u64>, is_answer: bool },
}

impl Frame {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Codec(error.to_string()))?;
        Error::check_limit("bytes of a frame", bytes.len(), FRAME_LEN_MAX)?;
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        Error::check_limit("bytes of a frame", bytes.len(), FRAME_LEN_MAX)?;
        let frame: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::Codec(error.to_string()))?;
        match &frame {
            Self::Changes { after, upto, changes, .. } => {
                Error::check_limit("changes of a frame", changes.len(), ENTRIES_MAX as u64)?;
                if after > upto {
                    return Err(Error::Invalid("a frame that ends before it begins"));
                }
            }
            Self::Digest { sums, .. } if sums.len() != BUCKETS => {
                return Err(Error::Invalid("a digest of another size"));
            }
            _ => {}
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Frame::decode(&bytes);
        }
    }

    #[test]
    fn frames_come_back_and_crooked_ones_are_refused() {
        let change = Change { key: "k".into(), hlc: Hlc::default(), value: Some("1".into()) };
        let changes = vec![change];
        let frame = Frame::Changes {
            incarnation: 1,
            acked: 0,
            after: 2,
            upto: 3,
            changes: changes.clone(),
        };
        assert_eq!(Frame::decode(&frame.encode().unwrap()).unwrap(), frame);
        let crooked = Frame::Changes { incarnation: 1, acked: 0, after: 3, upto: 2, changes };
        assert!(matches!(Frame::decode(&crooked.encode().unwrap()), Err(Error::Invalid(_))));
        let short = Frame::Digest { sums: vec![1], is_answer: false };
        assert!(matches!(Frame::decode(&short.encode().unwrap()), Err(Error::Invalid(_))));
    }
}
