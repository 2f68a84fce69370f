//! An embedder without a model: words and their parts, hashed into components.
//! Finds texts that share words, not texts that mean the same. Deterministic, offline, fast.

use unicode_segmentation::UnicodeSegmentation;

use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::vector::DIM_MAX;
use crate::vector::hash::Hash;

/// Characters of a part of a word.
const PART_CHARS: usize = 3;
/// What a part counts, where a word counts 1.
const PART_WEIGHT: f32 = 0.5;

/// Feature hashing (Weinberger and others, "Feature Hashing for Large Scale Multitask Learning",
/// arXiv 0902.2206): each word, in lower case, and each three characters of it add to one
/// component, up or down as a bit of the hash says.
///
/// ```
/// use terrace_memory::embed::{Embedder, HashingEmbedder};
///
/// let embedder = HashingEmbedder::new(256)?;
/// let vectors = embedder.embed(&["a cold tier", "the cold tier", "sunrise"])?;
/// let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
/// assert!(near(&vectors[0], &vectors[1]) > near(&vectors[0], &vectors[2]));
/// # Ok::<(), terrace_memory::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HashingEmbedder {
    dim: usize,
    model: String,
}

impl HashingEmbedder {
    /// Vectors of so many components, 1 to [`DIM_MAX`].
    pub fn new(dim: usize) -> Result<Self> {
        Error::check_limit("dimension of a vector", dim, DIM_MAX)?;
        if dim == 0 {
            return Err(Error::Invalid("vectors without components"));
        }
        Ok(Self { dim, model: format!("hashing-{dim}") })
    }

    fn one(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.0; self.dim];
        let lower = text.to_lowercase();
        let mut chars = Vec::new();
        for word in lower.unicode_words() {
            self.add(&mut vector, "w", word, 1.0);
            chars.clear();
            chars.extend(word.char_indices().map(|(at, _)| at).chain([word.len()]));
            for ends in chars.windows(PART_CHARS + 1) {
                let (Some(from), Some(to)) = (ends.first(), ends.last()) else { continue };
                self.add(&mut vector, "p", word.get(*from..*to).unwrap_or(""), PART_WEIGHT);
            }
        }
        if vector.iter().all(|part| *part == 0.0) {
            // No words, or words that cancel out: the text as a whole, which is never nothing.
            self.add(&mut vector, "t", text, 1.0);
        }
        let norm = vector.iter().map(|part| part * part).sum::<f32>().sqrt();
        vector.iter().map(|part| part / norm).collect()
    }

    fn add(&self, vector: &mut [f32], kind: &str, feature: &str, weight: f32) {
        let mut hash = Hash::new();
        hash.add(kind.as_bytes());
        hash.add(feature.as_bytes());
        let hash = hash.finish();
        let at = (hash >> 1) % self.dim as u64;
        if let Some(part) = usize::try_from(at).ok().and_then(|at| vector.get_mut(at)) {
            *part += if hash & 1 == 0 { weight } else { -weight };
        }
    }
}

impl Embedder for HashingEmbedder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| self.one(text)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_has_a_vector_of_length_one_and_always_the_same(
            text in ".*",
            dim in 1_usize..64,
        ) {
            let embedder = HashingEmbedder::new(dim).unwrap();
            let vectors = embedder.embed(&[&text, &text]).unwrap();
            let norm: f32 = vectors[0].iter().map(|part| part * part).sum();
            prop_assert!((norm - 1.0).abs() < 1e-4, "{norm}");
            prop_assert_eq!(&vectors[0], &vectors[1]);
        }
    }

    #[test]
    fn texts_that_share_words_are_nearer_in_any_script() {
        let embedder = HashingEmbedder::new(512).unwrap();
        let near = |a: &str, b: &str| {
            let vectors = embedder.embed(&[a, b]).unwrap();
            vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!(near("Where does the cold tier live?", "the cold TIER") > 0.4);
        assert!(near("promotion of records", "promoting a record") > 0.2);
        assert!(near("\u{ac80}\u{c0c9} \u{c5d4}\u{c9c4}", "\u{ac80}\u{c0c9}") > 0.4);
        assert!(near("sunrise", "the cold tier").abs() < 0.3);
        assert!(matches!(HashingEmbedder::new(0), Err(Error::Invalid(_))));
        assert!(matches!(HashingEmbedder::new(1 << 20), Err(Error::Limit { .. })));
    }
}
