//! The data of every bench: keys, values, orders of access, the same in each run.
//! Knows numbers and bytes; knows no engine.

/// Bytes of a key.
pub const KEY_LEN: usize = 24;
/// Bytes of a value where a row does not say otherwise.
pub const VALUE_LEN: usize = 100;
/// Bytes of a JSON text of the cold rows.
pub const TEXT_LEN: usize = 1024;
/// Skew of the zipf rows, as YCSB has it.
pub const THETA: f64 = 0.99;

/// A key as the benches write it.
pub type Key = [u8; KEY_LEN];

/// Words of the JSON texts: the most frequent come first.
const WORDS: &str = "the of and to a in is that for it with as was on be by this are from \
    or at user session \
    memory context model answer question tool call result search file line error value key \
    store record table index query page time token budget summary note task plan step agent \
    message reply prompt draft review test build release branch commit change request issue \
    open closed pending failed passed running queue worker thread process signal socket \
    stream buffer cache block segment archive journal manifest snapshot iterator cursor \
    range prefix batch transaction conflict retry timeout deadline limit quota account \
    ledger audit report chart figure median spread sample latency throughput bandwidth \
    memory disk network kernel driver device garden river mountain valley harbour bridge \
    castle village market station window kitchen letter";

/// Mixes a number so that neighbours end far apart; no two numbers give the same.
#[must_use]
pub fn mix(number: u64) -> u64 {
    // The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of record `id`. Ascending ids give keys in no order.
#[must_use]
pub fn key(id: u64) -> Key {
    let mut key = *b"user00000000000000000000";
    let mut rest = mix(id);
    for digit in key.iter_mut().skip(4).rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// Fills `value` with bytes that do not compress; the first eight are the id.
pub fn fill_value(id: u64, version: u64, value: &mut [u8]) {
    let mut numbers = Numbers::new(mix(id) ^ version);
    for part in value.chunks_mut(8) {
        for (byte, random) in part.iter_mut().zip(numbers.number().to_le_bytes()) {
            *byte = random;
        }
    }
    for (byte, known) in value.iter_mut().zip(id.to_le_bytes()) {
        *byte = known;
    }
}

/// Whether a value is one of record `id`, judged by its first bytes.
#[must_use]
pub fn is_value_of(id: u64, value: &[u8]) -> bool {
    value.get(..8) == Some(&id.to_le_bytes()[..])
}

/// Texts like those an agent keeps: JSON of 1 KiB, words by frequency.
#[derive(Debug)]
pub struct Texts {
    words: Vec<&'static str>,
    ranks: Zipf,
}

impl Default for Texts {
    fn default() -> Self {
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        let ranks = Zipf::new(words.len() as u64, THETA);
        Self { words, ranks }
    }
}

impl Texts {
    /// The text of record `id`.
    #[must_use]
    pub fn text(&self, id: u64) -> Vec<u8> {
        let mut numbers = Numbers::new(mix(id));
        let role = ["user", "assistant", "tool"];
        let role = role.get(usize::try_from(id % 3).unwrap_or(0)).copied().unwrap_or("user");
        let mut text = format!(
            "{{\"id\":\"{:016x}\",\"session\":\"{:08x}\",\"role\":\"{role}\",\"created_ms\":{},\
             \"tokens\":{},\"text\":\"",
            mix(id),
            id / 40,
            1_760_000_000_000 + id * 731,
            numbers.below(900)
        );
        while text.len() < TEXT_LEN - 2 {
            let rank = usize::try_from(self.ranks.rank(&mut numbers)).unwrap_or(0);
            text.push_str(self.words.get(rank).copied().unwrap_or("the"));
            text.push(' ');
        }
        text.truncate(TEXT_LEN - 2);
        text.push_str("\"}");
        text.into_bytes()
    }
}

/// Numbers that look random, the same ones in each run.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound.max(1));
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// The next number from 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Zipf-distributed ranks: the generator of YCSB (Gray et al., SIGMOD 1994). Setting it up costs
/// one power for each rank.
#[derive(Debug, Clone)]
pub struct Zipf {
    count: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are small and not negative"
)]
impl Zipf {
    /// Ranks from 0 to below `count`.
    #[must_use]
    pub fn new(count: u64, theta: f64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let all = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / all);
        Self { count, alpha: 1.0 / (1.0 - theta), zeta: all, eta }
    }

    /// A rank; 0 is the most frequent.
    pub fn rank(&self, numbers: &mut Numbers) -> u64 {
        let u = numbers.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1.min(self.count - 1);
        }
        let rank = self.count as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }

    /// A record id: ranks spread over the ids, so that frequent records do not lie side by side.
    pub fn id(&self, numbers: &mut Numbers) -> u64 {
        mix(self.rank(numbers)) % self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_in_no_order() {
        let keys: Vec<Key> = (0..1000).map(key).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 1000);
        assert_ne!(sorted, keys);
    }

    #[test]
    fn a_value_tells_its_record() {
        let mut value = [0; VALUE_LEN];
        fill_value(7, 1, &mut value);
        assert!(is_value_of(7, &value));
        assert!(!is_value_of(8, &value));
    }

    #[test]
    fn zipf_favours_the_first_rank_as_much_as_it_should() {
        let zipf = Zipf::new(1000, THETA);
        let mut numbers = Numbers::new(1);
        let zeros = (0..100_000).filter(|_| zipf.rank(&mut numbers) == 0).count();
        // 1 / zeta(1000, 0.99) is 13.0 %.
        assert!((12_000..14_000).contains(&zeros), "{zeros}");
    }

    #[test]
    fn texts_are_json_of_the_length_they_should_have() {
        let texts = Texts::default();
        for id in 0..20 {
            let text = texts.text(id);
            assert_eq!(text.len(), TEXT_LEN);
            assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        }
    }
}
