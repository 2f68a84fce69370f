//! Chooses the content of a dictionary: the pieces of a sample that cover most of what recurs in
//! it.
//! Knows bytes; knows nothing of blocks, archives or zstd.
//!
//! The algorithm is that of Liao, Petri, Moffat and Wirth, "Effective construction of relative
//! Lempel-Ziv dictionaries" (WWW 2016), which zstd's own trainer follows too: the sample is cut
//! into as many epochs as the dictionary has pieces; from each epoch goes the piece whose
//! substrings are the most frequent in the whole sample, and what it covers counts no more for
//! later pieces. Frequencies are counted by hash, in tables of 256 KiB in all; zstd's trainer takes
//! 10 MiB, and tries several sizes of pieces one after the other.
#![expect(clippy::indexing_slicing, reason = "tables have a place for every hash")]

/// Length of a piece.
const PIECE_LEN: usize = 256;
/// Length of the substrings that are counted, and of the window that one is hashed from.
const SUBSTRING_LEN: usize = 6;
const WINDOW_LEN: usize = 8;
/// Substrings that begin in a piece.
const PIECE_COUNT: usize = PIECE_LEN - WINDOW_LEN + 1;
const HASH_BITS: u32 = 16;
/// Epochs without anything frequent, one after the other, after which nothing is looked for.
const BARREN_MAX: usize = 8;

/// At most `len_max` bytes of the sample, the most useful last, where zstd finds them nearest.
pub(crate) fn most_covering(sample: &[u8], len_max: usize) -> Vec<u8> {
    let mut frequencies = Frequencies::of(sample);
    let epochs = (len_max / PIECE_LEN).max(1);
    let epoch_len = (sample.len() / epochs).max(1);
    let (mut pieces, mut left, mut barren) = (Vec::new(), len_max, 0);
    for epoch in sample.chunks(epoch_len).cycle().take(epochs * BARREN_MAX) {
        let piece = frequencies.best_piece(epoch);
        frequencies.forget(piece);
        let piece = &piece[..piece.len().min(left)];
        barren = if piece.is_empty() { barren + 1 } else { 0 };
        left -= piece.len();
        pieces.push(piece);
        if left == 0 || barren == BARREN_MAX {
            break;
        }
    }
    pieces.reverse();
    pieces.concat()
}

/// How often substrings occur in the sample, by hash, and in the window that slides over it.
struct Frequencies {
    sample: Vec<u16>,
    window: Vec<u16>,
}

impl Frequencies {
    fn of(sample: &[u8]) -> Self {
        let mut frequencies =
            Self { sample: vec![0; 1 << HASH_BITS], window: vec![0; 1 << HASH_BITS] };
        for hash in hashes(sample) {
            let count = &mut frequencies.sample[hash];
            *count = count.saturating_add(1);
        }
        frequencies
    }

    /// The piece of this epoch whose substrings are the most frequent, without ends that occur
    /// nowhere else; empty when there is none.
    fn best_piece<'s>(&mut self, epoch: &'s [u8]) -> &'s [u8] {
        let (mut score, mut best, mut from) = (0, 0, 0);
        let mut leaving = hashes(epoch);
        for (at, hash) in hashes(epoch).enumerate() {
            if self.window[hash] == 0 {
                score += u64::from(self.sample[hash]);
            }
            self.window[hash] += 1;
            if at >= PIECE_COUNT {
                score -= leaving.next().map_or(0, |hash| self.leave(hash));
            }
            if score > best {
                (best, from) = (score, (at + 1).saturating_sub(PIECE_COUNT));
            }
        }
        for hash in leaving {
            self.leave(hash);
        }
        if best == 0 {
            return &[];
        }
        self.trim(&epoch[from..(from + PIECE_LEN).min(epoch.len())])
    }

    /// Takes a substring out of the window; what that takes off the score.
    fn leave(&mut self, hash: usize) -> u64 {
        let count = &mut self.window[hash];
        *count -= 1;
        if *count == 0 { u64::from(self.sample[hash]) } else { 0 }
    }

    fn trim<'s>(&self, piece: &'s [u8]) -> &'s [u8] {
        let recurs = |hash: usize| self.sample[hash] > 1;
        let first = hashes(piece).position(recurs);
        let last = hashes(piece).rposition(recurs);
        match (first, last) {
            (Some(first), Some(last)) => &piece[first..last + WINDOW_LEN],
            _ => &[],
        }
    }

    fn forget(&mut self, piece: &[u8]) {
        for hash in hashes(piece) {
            self.sample[hash] = 0;
        }
    }
}

/// The hashes of all substrings.
fn hashes(bytes: &[u8]) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + '_ {
    bytes.array_windows::<WINDOW_LEN>().map(|window| {
        let substring = u64::from_le_bytes(*window) << (8 * (WINDOW_LEN - SUBSTRING_LEN));
        (substring.wrapping_mul(0xCF1B_BCDC_B7A5_6463) >> (u64::BITS - HASH_BITS)) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recurs_is_chosen_and_what_does_not_is_left_out() {
        let mut random = 7_u64;
        let mut sample = Vec::new();
        let recurring =
            b"{\"status\":\"delivered\",\"customer\":\"number\",\"language\":\"korean\"}";
        for _ in 0..400 {
            sample.extend_from_slice(recurring);
            for _ in 0..40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                sample.extend_from_slice(&random.to_be_bytes()[..4]);
            }
        }
        let chosen = most_covering(&sample, 2048);
        let found = |needle: &[u8]| chosen.windows(needle.len()).any(|part| part == needle);
        assert!(found(recurring));
        assert!(chosen.len() <= 2048);
    }

    #[test]
    fn any_sample_gives_at_most_what_was_asked_for() {
        for (sample, len_max) in [(0, 100), (5, 100), (8, 0), (300, 10), (100_000, 1024)] {
            let sample: Vec<u8> = (0..sample).map(|i: u32| (i % 251 / 3) as u8).collect();
            let chosen = most_covering(&sample, len_max);
            assert!(chosen.len() <= len_max, "{} of {len_max}", chosen.len());
            assert!(chosen.is_empty() || sample.windows(8).any(|part| chosen.starts_with(part)));
        }
    }

    #[test]
    fn one_letter_for_ever_is_chosen_once() {
        assert!(most_covering(&vec![b'a'; 200_000], 16 << 10).len() <= PIECE_LEN);
    }
}
