//! Counting tokens: the trait, the two vocabularies that are embedded, and a factor for others.
//! Knows text; knows nothing of budgets or conversations.
//!
//! Counts of [`Vocabulary`] are those of the reference vocabularies, token for token. They take
//! linear time whatever the text: half a megabyte of one letter takes as long as of prose.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Counts the tokens of a text.
pub trait TokenCounter: Send + Sync {
    /// How many tokens the text has.
    fn count(&self, text: &str) -> usize;

    /// Which counter this is. It is stored with counts, since counts of two differ.
    fn id(&self) -> &str;
}

impl<T: TokenCounter + ?Sized> TokenCounter for Arc<T> {
    fn count(&self, text: &str) -> usize {
        (**self).count(text)
    }

    fn id(&self) -> &str {
        (**self).id()
    }
}

/// A vocabulary that is embedded in this crate (feature `tokenizer`).
///
/// ```
/// use terrace_memory::tokens::{TokenCounter, Vocabulary};
///
/// assert_eq!(Vocabulary::O200k.count("Hello, world!"), 4);
/// assert_eq!(Vocabulary::O200k.id(), "o200k_base");
/// ```
#[cfg(feature = "tokenizer")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// `o200k_base`, of the models since GPT-4o.
    O200k,
    /// `cl100k_base`, of GPT-4 and GPT-3.5.
    Cl100k,
}

#[cfg(feature = "tokenizer")]
impl TokenCounter for Vocabulary {
    fn count(&self, text: &str) -> usize {
        let tokenizer = match self {
            Self::O200k => bpe_openai::o200k_base(),
            Self::Cl100k => bpe_openai::cl100k_base(),
        };
        tokenizer.count(text)
    }

    fn id(&self) -> &'static str {
        match self {
            Self::O200k => "o200k_base",
            Self::Cl100k => "cl100k_base",
        }
    }
}

/// Another counter's counts times a factor, rounded up: for models whose vocabulary is not public.
///
/// The factor is a measurement of the caller's, on texts of the caller's.
#[derive(Clone)]
pub struct Scaled {
    inner: Arc<dyn TokenCounter>,
    per_mille: u32,
    id: String,
}

impl Scaled {
    /// `inner`, times `per_mille` thousandths.
    ///
    /// Errors: [`Error::Invalid`] for a factor of zero.
    pub fn new(inner: Arc<dyn TokenCounter>, per_mille: u32) -> Result<Self> {
        if per_mille == 0 {
            return Err(Error::Invalid("a factor of zero"));
        }
        let id = format!("{}*{}.{:03}", inner.id(), per_mille / 1000, per_mille % 1000);
        Ok(Self { inner, per_mille, id })
    }
}

impl TokenCounter for Scaled {
    fn count(&self, text: &str) -> usize {
        let scaled = (self.inner.count(text) as u128 * u128::from(self.per_mille)).div_ceil(1000);
        usize::try_from(scaled).unwrap_or(usize::MAX)
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scaled({})", self.id)
    }
}

#[cfg(all(test, feature = "tokenizer"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(vocabulary: Vocabulary, text: &str) -> usize {
        let reference = match vocabulary {
            Vocabulary::O200k => tiktoken_rs::o200k_base_singleton(),
            Vocabulary::Cl100k => tiktoken_rs::cl100k_base_singleton(),
        };
        reference.encode_ordinary(text).len()
    }

    fn assert_same(text: &str) {
        for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k] {
            let (count, expected) = (vocabulary.count(text), reference(vocabulary, text));
            assert_eq!(count, expected, "{vocabulary:?} of {} bytes", text.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn counts_are_those_of_the_reference(
            text in "([a-zA-Z]{1,12}|[ \t\r\n]{1,3}|[0-9]{1,5}|[!-/]{1,4}|\
                     [\u{ac00}-\u{d7a3}]{1,6}|[\u{3041}-\u{3096}]{1,4}|[\u{4e00}-\u{4fff}]{1,3}|\
                     '(s|ll|VE)|\u{1f600}|\u{e9}|e\u{301}|\u{feff}|\\PC){0,40}",
        ) {
            assert_same(&text);
        }
    }

    #[test]
    fn counts_of_code_and_prose_are_those_of_the_reference() {
        for text in [
            include_str!("tokens.rs"),
            include_str!("store/engine.rs"),
            include_str!("../../docs/memory.md"),
            include_str!("../../docs/decisions.md"),
            "",
            "<|endoftext|>",
            "\u{bcd1}\u{b82c} \u{c791}\u{c5c5} \u{c815}\u{b9ac}\u{d574}\u{c918}. gen\u{d558}",
        ] {
            assert_same(text);
        }
    }

    #[test]
    fn half_a_megabyte_of_one_letter_is_counted_in_linear_time() {
        for letter in ["a", " ", "\n", "\u{ac00}"] {
            let text = letter.repeat((512 << 10) / letter.len());
            let watch = crate::clock::Stopwatch::start(std::time::Duration::from_secs(2));
            assert!(Vocabulary::O200k.count(&text) > 1000);
            // 5 ms in a release build; the bound holds for a debug build on a busy machine.
            assert!(watch.left().is_some(), "{letter:?} took longer than two seconds");
        }
    }

    #[test]
    fn a_scaled_count_rounds_up_and_says_so_in_its_name() {
        let scaled = Scaled::new(Arc::new(Vocabulary::O200k), 1150).unwrap();
        assert_eq!(scaled.count("Hello, world!"), 5);
        assert_eq!(scaled.id(), "o200k_base*1.150");
        assert_eq!(scaled.count(""), 0);
        assert!(Scaled::new(Arc::new(Vocabulary::O200k), 0).is_err());
    }
}
