//! A cache over any embedder, in a store: a text is embedded once for each model.
//! Knows hashes of texts; knows nothing of how vectors are made.
//!
//! A row's key is SipHash-2-4 with 128 bits of the text, and its length; the namespace has the
//! model's name. The value is the vector, `f32` little-endian, behind its dimension in four bytes.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::embed::{Embedder, checked};
use crate::error::Result;
use crate::store::{Batch, Ns, Store, Ttl};

/// Vectors that one commit writes.
const COMMIT_ROWS: usize = 256;

/// An embedder that asks another one only for texts that it has not seen. What it has seen is in
/// the store, and stays there for the given time.
pub struct CachedEmbedder<E> {
    inner: E,
    store: Arc<dyn Store>,
    ns: Ns,
    ttl: Ttl,
}

impl<E: fmt::Debug> fmt::Debug for CachedEmbedder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedEmbedder({:?}, {:?})", self.ns, self.inner)
    }
}

impl<E: Embedder> CachedEmbedder<E> {
    /// A cache for this embedder. With [`Ttl::Never`] it grows as long as there are new texts.
    pub fn new(inner: E, store: Arc<dyn Store>, ttl: Ttl) -> Result<Self> {
        let ns = Ns::within("embeddings", inner.model())?.without_log();
        Ok(Self { inner, store, ns, ttl })
    }

    /// The embedder below.
    pub fn inner(&self) -> &E {
        &self.inner
    }

    fn cached(&self, text: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.store.get(&self.ns, &key(text))? else { return Ok(None) };
        let (parts, rest) = entry.value.as_chunks::<4>();
        let dim = u32::try_from(self.dim()).unwrap_or(u32::MAX).to_le_bytes();
        // What another dimension left behind is made anew.
        let fits = parts.len() == self.dim() + 1 && rest.is_empty() && parts.first() == Some(&dim);
        let vector = parts.iter().skip(1).map(|part| f32::from_le_bytes(*part)).collect();
        Ok(fits.then_some(vector))
    }

    fn keep(&self, made: &[(&str, Vec<f32>)]) -> Result<()> {
        for rows in made.chunks(COMMIT_ROWS) {
            let mut batch = Batch::new(&self.ns);
            for (text, vector) in rows {
                let dim = u32::try_from(vector.len()).unwrap_or(u32::MAX);
                let mut value = dim.to_le_bytes().to_vec();
                value.extend(vector.iter().flat_map(|part| part.to_le_bytes()));
                batch = batch.put(key(text), value, self.ttl);
            }
            self.store.commit(batch)?;
        }
        Ok(())
    }
}

fn key(text: &str) -> Vec<u8> {
    let mut hasher = SipHasher24::new();
    hasher.write(text.as_bytes());
    let hash = hasher.finish128();
    let mut key = hash.as_u128().to_be_bytes().to_vec();
    key.extend_from_slice(&(text.len() as u64).to_be_bytes());
    key
}

impl<E: Embedder> Embedder for CachedEmbedder<E> {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn model(&self) -> &str {
        self.inner.model()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            vectors.push(self.cached(text)?);
        }
        let pairs = texts.iter().zip(&vectors);
        let mut missing: Vec<&str> =
            pairs.filter(|(_, vector)| vector.is_none()).map(|(text, _)| *text).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(vectors.into_iter().flatten().collect());
        }
        let new = checked(&self.inner, &missing)?;
        let made: Vec<(&str, Vec<f32>)> = missing.into_iter().zip(new).collect();
        self.keep(&made)?;
        let find = |text: &str| {
            let at = made.binary_search_by(|(other, _)| (*other).cmp(text)).ok()?;
            made.get(at).map(|(_, vector)| vector.clone())
        };
        let all = texts.iter().zip(vectors);
        Ok(all.filter_map(|(text, vector)| vector.or_else(|| find(text))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::embed::HashingEmbedder;
    use crate::error::Error;
    use crate::store::MemStore;

    /// Counts the texts that it was asked for.
    struct Counting(HashingEmbedder, AtomicUsize);

    impl Embedder for Counting {
        fn dim(&self) -> usize {
            self.0.dim()
        }

        fn model(&self) -> &str {
            self.0.model()
        }

        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            self.1.fetch_add(texts.len(), Ordering::Relaxed);
            self.0.embed(texts)
        }
    }

    fn counting(dim: usize) -> Counting {
        Counting(HashingEmbedder::new(dim).unwrap(), AtomicUsize::new(0))
    }

    #[test]
    fn a_text_is_embedded_once_and_answered_as_by_the_embedder_itself() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let cached = CachedEmbedder::new(counting(16), Arc::clone(&store), Ttl::Never).unwrap();
        let asked = |cached: &CachedEmbedder<Counting>| cached.inner().1.load(Ordering::Relaxed);
        let texts = ["b", "a", "b", ""];
        let plain = HashingEmbedder::new(16).unwrap().embed(&texts).unwrap();
        assert_eq!(cached.embed(&texts).unwrap(), plain);
        assert_eq!(asked(&cached), 3);
        assert_eq!(cached.embed(&texts).unwrap(), plain);
        assert_eq!(cached.embed(&["a", "new"]).unwrap()[0], plain[1]);
        assert_eq!(asked(&cached), 4);
        let again = CachedEmbedder::new(counting(16), store, Ttl::Never).unwrap();
        assert_eq!(again.embed(&texts).unwrap(), plain);
        assert_eq!(asked(&again), 0, "what is in the store outlives the handle");
    }

    #[test]
    fn an_embedder_that_gives_too_few_is_an_error_and_nothing_is_kept() {
        struct Short;
        impl Embedder for Short {
            fn dim(&self) -> usize {
                3
            }
            fn model(&self) -> &'static str {
                "short"
            }
            fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
                Ok(texts.iter().skip(1).map(|text| vec![1.0; text.len()]).collect())
            }
        }
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let cached = CachedEmbedder::new(Short, Arc::clone(&store), Ttl::Never).unwrap();
        assert!(matches!(cached.embed(&["a"]), Err(Error::Backend(_))));
        let rows = store.scan(&cached.ns, crate::store::Scan::all()).unwrap();
        assert!(rows.is_empty());
    }
}
