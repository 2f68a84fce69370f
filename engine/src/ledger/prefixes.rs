//! Which prefixes many keys share: from a sample of keys with their weights.
//! Knows byte strings; knows nothing of where they come from.

use std::collections::BTreeMap;

use crate::ledger::leaks::GrowingPrefix;

/// A prefix is named when it has at least this share of the weight, in percent.
const SHARE_PERCENT_MIN: u64 = 20;

/// A key of a sample.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SampledKey {
    pub key: Vec<u8>,
    /// Bytes that it stands for.
    pub bytes: u64,
    /// Keys that it stands for.
    pub keys: u64,
    pub lasting: bool,
}

/// The prefixes that the keys have in common, the heaviest first.
pub(crate) fn shared_prefixes(mut sample: Vec<SampledKey>) -> Vec<GrowingPrefix> {
    sample.sort();
    let total: u64 = sample.iter().map(|key| key.bytes).sum();
    let mut heavy = Vec::new();
    descend(&sample, total, &mut heavy);
    let mut merged: BTreeMap<Vec<u8>, [u64; 4]> = BTreeMap::new();
    for (prefix, keys) in heavy {
        let sums = merged.entry(prefix).or_default();
        for one in keys {
            let lasting = u64::from(one.lasting);
            for (sum, by) in sums.iter_mut().zip([one.bytes, one.keys, 1, lasting]) {
                *sum += by;
            }
        }
    }
    let mut prefixes: Vec<GrowingPrefix> = merged
        .into_iter()
        .map(|(prefix, [bytes, keys, sampled, lasting])| GrowingPrefix {
            prefix,
            bytes,
            keys,
            lasting_percent: lasting * 100 / sampled.max(1),
        })
        .collect();
    prefixes.sort_by_key(|one| std::cmp::Reverse(one.bytes));
    prefixes
}

type Heavy<'s> = Vec<(Vec<u8>, &'s [SampledKey])>;

/// Enters the heavy prefixes of sorted keys: that of all, or those of the heavy ones among them.
fn descend<'s>(sample: &'s [SampledKey], total: u64, heavy: &mut Heavy<'s>) {
    let (Some(first), Some(last)) = (sample.first(), sample.last()) else { return };
    let pairs = first.key.iter().zip(&last.key);
    let common = pairs.take_while(|(a, b)| a == b).count();
    let parts = sample.chunk_by(|a, b| a.key.get(common) == b.key.get(common));
    let weight = |part: &[SampledKey]| part.iter().map(|key| key.bytes).sum::<u64>();
    let is_heavy =
        |part: &&[SampledKey]| part.len() > 1 && weight(part) * 100 >= total * SHARE_PERCENT_MIN;
    let parts: Vec<_> = parts.filter(is_heavy).collect();
    let own = weight(sample);
    let covered: u64 = parts.iter().map(|part| weight(part)).sum();
    if covered * 100 >= own * 80 && covered > 0 {
        for part in parts {
            descend(part, total, heavy);
        }
        return;
    }
    let prefix = first.key.get(..common).unwrap_or_default();
    heavy.push((whole_words(prefix).to_vec(), sample));
}

/// The prefix up to its last separator; without one, without the digits at its end.
fn whole_words(prefix: &[u8]) -> &[u8] {
    let cut = prefix.iter().rposition(|byte| byte.is_ascii_punctuation() || *byte == 0);
    let digits = prefix.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    prefix.get(..cut.map_or(prefix.len() - digits, |at| at + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(keys: impl Iterator<Item = String>) -> Vec<(String, u64)> {
        let key = |key: String| SampledKey { key: key.into(), bytes: 10, keys: 1, lasting: true };
        let prefixes = shared_prefixes(keys.map(key).collect());
        let text = |prefix: &GrowingPrefix| String::from_utf8(prefix.prefix.clone()).unwrap();
        prefixes.iter().map(|prefix| (text(prefix), prefix.keys)).collect()
    }

    #[test]
    fn a_growing_prefix_is_named_up_to_its_last_separator() {
        let keys = (1000..5000).map(|number| format!("session/{number}"));
        assert_eq!(found(keys), [("session/".to_owned(), 4000)]);
        let keys = (0..100).map(|number| format!("user{number:04}"));
        assert_eq!(found(keys), [("user".to_owned(), 100)]);
    }

    #[test]
    fn two_heavy_prefixes_are_two_and_light_ones_are_left_out() {
        let a = (0..600).map(|number| format!("a:{number}"));
        let b = (0..300).map(|number| format!("b:x:{number}"));
        let rest = (0..30).map(|number| format!("{number:02}"));
        let all = a.chain(b).chain(rest);
        assert_eq!(found(all), [("a:".to_owned(), 600), ("b:x:".to_owned(), 300)]);
    }

    #[test]
    fn keys_with_nothing_in_common_share_the_empty_prefix() {
        let keys = (0..26).map(|number| char::from(b'a' + number).to_string());
        assert_eq!(found(keys), [(String::new(), 26)]);
        assert!(found(std::iter::empty()).is_empty());
    }
}
