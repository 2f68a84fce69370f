//! Embedders: texts into vectors. A trait, a deterministic one for tests and offline use, a cache
//! over any of them, and one over HTTP (feature `http`).
//! Knows texts and numbers; knows nothing of what is done with the vectors.

mod cached;
mod hashing;
#[cfg(feature = "http")]
mod http;

pub use crate::embed::cached::CachedEmbedder;
pub use crate::embed::hashing::HashingEmbedder;
#[cfg(feature = "http")]
pub use crate::embed::http::{HttpEmbedder, HttpEmbedderBuilder, HttpError};
use crate::error::{Error, Result};

/// Makes vectors of texts. The same model gives the same text the same vector.
pub trait Embedder: Send + Sync {
    /// Components of every vector.
    fn dim(&self) -> usize;

    /// Which model: vectors of two models are never compared.
    fn model(&self) -> &str;

    /// One vector for each text, in their order, each of [`Embedder::dim`] components.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;
}

/// The vector of one text.
pub(crate) fn one(embedder: &dyn Embedder, text: &str) -> Result<Vec<f32>> {
    let mut vectors = checked(embedder, &[text])?;
    vectors.pop().ok_or(Error::Invalid("an embedder without an answer"))
}

/// What the embedder gives, as many as were asked for and each as long as promised.
pub(crate) fn checked(embedder: &dyn Embedder, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let vectors = embedder.embed(texts)?;
    if vectors.len() != texts.len() {
        let (got, expected) = (vectors.len(), texts.len());
        return Err(Error::backend(format!("an embedder gave {got} vectors for {expected} texts")));
    }
    let expected = embedder.dim();
    match vectors.iter().find(|vector| vector.len() != expected) {
        Some(vector) => Err(Error::Dimension { expected, got: vector.len() }),
        None => Ok(vectors),
    }
}
