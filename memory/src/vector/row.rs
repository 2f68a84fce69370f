//! One row: a vector and what it stands for, in bytes. Checks what may become a row.
//! Pure functions; knows no store and no index.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 3 | zero |
//! | 4 | dimension, little-endian |
//! | 4 x dimension | the vector, `f32`, little-endian |
//! | rest | content, metadata and moment, as a typed value (see `codec`) |

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::codec::{Json, Schema};
use crate::error::{Error, Result};

/// The longest vector: 16,384 components.
pub const DIM_MAX: u64 = 16_384;
/// The longest vector in the other sense: no score of two such overflows.
const NORM_MAX: f64 = 1e18;

const FORMAT: [u8; 4] = [1, 0, 0, 0];
const HEADER_LEN: usize = 8;

/// How near two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The cosine of the angle between them, -1 to 1. Vectors are stored with length one.
    #[default]
    Cosine,
    /// The sum of the products of their components. Vectors are stored as given.
    Dot,
}

/// What a row holds besides its vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) content: String,
    pub(super) metadata: Json,
    pub(super) created_at: Millis,
}

/// The vector as it is stored and compared. Refuses what cannot be compared.
#[expect(clippy::cast_possible_truncation, reason = "to the precision of a component")]
pub(super) fn prepared(vector: &[f32], dim: usize, metric: Metric) -> Result<Vec<f32>> {
    if vector.len() != dim {
        return Err(Error::Dimension { expected: dim, got: vector.len() });
    }
    if !vector.iter().all(|part| part.is_finite()) {
        return Err(Error::InvalidVector("a component that is not finite"));
    }
    let norm = norm(vector);
    if norm == 0.0 {
        return Err(Error::InvalidVector("a zero vector has no direction"));
    }
    match metric {
        Metric::Dot if norm > NORM_MAX => Err(Error::InvalidVector("longer than 1e18")),
        Metric::Dot => Ok(vector.to_vec()),
        Metric::Cosine => Ok(vector.iter().map(|part| (f64::from(*part) / norm) as f32).collect()),
    }
}

/// The length of a vector. In `f64` no square of an `f32` overflows or vanishes.
pub(super) fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|part| f64::from(*part) * f64::from(*part)).sum::<f64>().sqrt()
}

pub(super) fn encode(vector: &[f32], head: &Head) -> Result<Bytes> {
    let dim = u32::try_from(vector.len()).unwrap_or(u32::MAX);
    let head = Schema::default().encode(head)?;
    let mut out = Vec::with_capacity(HEADER_LEN + 4 * vector.len() + head.len());
    out.extend_from_slice(&FORMAT);
    out.extend_from_slice(&dim.to_le_bytes());
    for part in vector {
        out.extend_from_slice(&part.to_le_bytes());
    }
    out.extend_from_slice(&head);
    Ok(out.into())
}

/// A stored row, not copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'s> {
    vector: &'s [[u8; 4]],
    head: &'s [u8],
}

impl<'s> Row<'s> {
    /// The row that these bytes hold, of this dimension.
    pub(super) fn decode(stored: &'s [u8], dim: usize) -> Result<Self> {
        let refused = |detail: String| Error::corrupt("row of a vector", detail);
        let (Some(format), Some(found)) = (stored.get(..4), stored.get(4..HEADER_LEN)) else {
            return Err(refused(format!("{} bytes", stored.len())));
        };
        if format != FORMAT {
            return Err(refused(format!("format {format:?}, expected {FORMAT:?}")));
        }
        let expected = u32::try_from(dim).unwrap_or(u32::MAX).to_le_bytes();
        if found != expected {
            return Err(refused(format!("dimension {found:?}, expected {expected:?}")));
        }
        let rest = stored.get(HEADER_LEN..).unwrap_or(&[]);
        let Some((vector, head)) = rest.split_at_checked(4 * dim) else {
            return Err(refused(format!("{} bytes for {dim} components", rest.len())));
        };
        Ok(Self { vector: vector.as_chunks().0, head })
    }

    pub(super) fn head(&self) -> Result<Head> {
        Schema::default().decode(self.head)
    }

    pub(super) fn vector(&self) -> impl Iterator<Item = f32> + Clone + use<'s> {
        self.vector.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }

    /// The score against a query of the same dimension: products and sums in `f64`, in one order on
    /// every machine, rounded once. What is off is far below what an `f32` shows.
    #[expect(clippy::cast_possible_truncation, reason = "a score is an f32")]
    pub(super) fn score(&self, query: &[f32]) -> f32 {
        const LANES: usize = 8;
        let mut sums = [0.0_f64; LANES];
        let (parts, rest) = self.vector.as_chunks::<LANES>();
        let (query_parts, query_rest) = query.as_chunks::<LANES>();
        for (part, query) in parts.iter().zip(query_parts) {
            for ((sum, a), b) in sums.iter_mut().zip(part).zip(query) {
                *sum += f64::from(f32::from_le_bytes(*a)) * f64::from(*b);
            }
        }
        let pairs = rest.iter().zip(query_rest);
        let rest = pairs.map(|(a, b)| f64::from(f32::from_le_bytes(*a)) * f64::from(*b));
        let all = sums.iter().sum::<f64>() + rest.sum::<f64>();
        // A sum of zero has no sign here: two equal scores compare equal.
        all as f32 + 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn any_stored_bytes_never_panic(
            bytes in proptest::collection::vec(0_u8.., 0..60),
            dim in 0_usize..20,
        ) {
            if let Ok(row) = Row::decode(&bytes, dim) {
                let _ = row.head();
                prop_assert_eq!(row.vector().count(), dim);
            }
        }

        #[test]
        fn any_vector_is_refused_or_has_length_one(
            vector in proptest::collection::vec(any::<f32>(), 1..40),
        ) {
            match prepared(&vector, vector.len(), Metric::Cosine) {
                Ok(prepared) => prop_assert!((norm(&prepared) - 1.0).abs() < 1e-6),
                Err(error) => {
                    let zero = vector.iter().all(|part| *part == 0.0);
                    let wild = vector.iter().any(|part| !part.is_finite());
                    prop_assert!(matches!(error, Error::InvalidVector(_)) && (zero || wild));
                }
            }
        }
    }

    #[test]
    fn rows_come_back_as_they_went_and_score_exactly() {
        let head =
            Head { content: "text".into(), metadata: json!({ "a": 1 }), created_at: Millis(7) };
        let vector: Vec<f32> = (0_u8..19).map(|i| f32::from(i) * 0.5 - 3.0).collect();
        let stored = encode(&vector, &head).unwrap();
        let row = Row::decode(&stored, 19).unwrap();
        assert_eq!(row.head().unwrap(), head);
        assert_eq!(row.vector().collect::<Vec<_>>(), vector);
        let exact: f32 = vector.iter().map(|part| part * part).sum();
        assert!((row.score(&vector) - exact).abs() < 1e-6);
        assert!(matches!(Row::decode(&stored, 18), Err(Error::Corrupt { .. })));
        assert!(matches!(Row::decode(&stored[..60], 19), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn what_cannot_be_compared_is_refused_by_name() {
        let refused = |vector: &[f32]| prepared(vector, 2, Metric::Dot).unwrap_err().to_string();
        assert_eq!(refused(&[1.0]), "vector of dimension 1, expected 2");
        assert!(refused(&[f32::NAN, 0.0]).contains("not finite"));
        assert!(refused(&[f32::INFINITY, 0.0]).contains("not finite"));
        assert!(refused(&[0.0, -0.0]).contains("zero"));
        assert!(refused(&[f32::MAX, 0.0]).contains("longer"));
        let long = prepared(&[f32::MAX, 0.0], 2, Metric::Cosine).unwrap();
        assert_eq!(long, [1.0, 0.0]);
        let short = prepared(&[f32::from_bits(1), 0.0], 2, Metric::Cosine).unwrap();
        assert_eq!(short, [1.0, 0.0]);
    }
}
