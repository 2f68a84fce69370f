//! The bytes of a simulated file, in pages that copies share until one of them changes.
//! Knows bytes and positions; zeros take no memory, so that a copy of a disk costs little.

use std::sync::{Arc, OnceLock};

/// What copies share.
pub(super) const PAGE_LEN: usize = 4096;

#[derive(Debug, Clone)]
struct Page {
    bytes: [u8; PAGE_LEN],
    /// 0 for zeros; computed when somebody asks.
    digest: OnceLock<u64>,
}

impl Page {
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            let is_zero = self.bytes.iter().all(|&byte| byte == 0);
            if is_zero { 0 } else { fold(1, &self.bytes) | 1 }
        })
    }
}

/// Bytes from 0 to a length.
#[derive(Debug, Default, Clone)]
pub(super) struct Pages {
    len: usize,
    /// `None` for zeros, as for what stands behind the last of them.
    pages: Vec<Option<Arc<Page>>>,
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Becomes these bytes.
    pub(super) fn set(&mut self, bytes: &[u8]) {
        *self = Self::default();
        self.resize(bytes.len());
        self.write(0, bytes);
    }

    /// Grows with zeros, or is cut.
    pub(super) fn resize(&mut self, len: usize) {
        if len < self.len {
            self.zero(len, self.len);
            self.pages.truncate(len.div_ceil(PAGE_LEN));
        }
        self.len = len;
    }

    /// Whether all of `buf` was inside.
    pub(super) fn read(&self, at: usize, buf: &mut [u8]) -> bool {
        let inside = at.checked_add(buf.len()).is_some_and(|end| end <= self.len);
        for (at, piece) in pieces(at, buf) {
            let page = self.pages.get(at / PAGE_LEN).and_then(Option::as_ref);
            let bytes = page.and_then(|page| page.bytes.get(at % PAGE_LEN..));
            match bytes.and_then(|bytes| bytes.get(..piece.len())) {
                Some(bytes) => piece.copy_from_slice(bytes),
                None => piece.fill(0),
            }
        }
        inside
    }

    /// Writes what lies inside; the rest is dropped.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let room = self.len.saturating_sub(at).min(bytes.len());
        let mut rest = bytes.get(..room).unwrap_or_default();
        let mut at = at;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(PAGE_LEN - at % PAGE_LEN));
            self.write_piece(at, piece);
            at += piece.len();
            rest = behind;
        }
    }

    /// Bytes of one page.
    fn write_piece(&mut self, at: usize, piece: &[u8]) {
        let index = at / PAGE_LEN;
        if self.pages.get(index).is_none_or(Option::is_none) && piece.iter().all(|&b| b == 0) {
            return;
        }
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        let Some(slot) = self.pages.get_mut(index) else { return };
        let fresh = || Arc::new(Page { bytes: [0; PAGE_LEN], digest: OnceLock::new() });
        let page = Arc::make_mut(slot.get_or_insert_with(fresh));
        page.digest = OnceLock::new();
        let target = page.bytes.get_mut(at % PAGE_LEN..).unwrap_or_default();
        for (target, byte) in target.iter_mut().zip(piece) {
            *target = *byte;
        }
    }

    pub(super) fn zero(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to.min(self.len) {
            let end = (at + PAGE_LEN - at % PAGE_LEN).min(to).min(self.len);
            if end - at == PAGE_LEN {
                if let Some(slot) = self.pages.get_mut(at / PAGE_LEN) {
                    *slot = None;
                }
            } else {
                self.write_piece(at, [0; PAGE_LEN].get(..end - at).unwrap_or_default());
            }
            at = end;
        }
    }

    /// The pages that hold more than zeros: their number, and their bytes up to the length.
    pub(super) fn filled(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.pages.iter().enumerate().filter_map(|(index, page)| {
            let page = page.as_ref().filter(|page| page.digest() != 0)?;
            let room = self.len.saturating_sub(index * PAGE_LEN).min(PAGE_LEN);
            Some((index, page.bytes.get(..room)?))
        })
    }

    /// The same for the same bytes.
    pub(super) fn digest(&self) -> u64 {
        let pages = self.pages.iter().enumerate().filter_map(|(index, page)| {
            let digest = page.as_ref()?.digest();
            (digest != 0).then_some(mix(digest ^ mix(index as u64)))
        });
        pages.fold(mix(self.len as u64), u64::wrapping_add)
    }
}

/// `buf` cut at the borders of pages, each piece with its position.
fn pieces(at: usize, buf: &mut [u8]) -> impl Iterator<Item = (usize, &mut [u8])> {
    let first = (PAGE_LEN - at % PAGE_LEN).min(buf.len());
    let (head, rest) = buf.split_at_mut(first);
    let tail = rest.chunks_mut(PAGE_LEN).enumerate();
    let tail = tail.map(move |(index, piece)| (at + first + index * PAGE_LEN, piece));
    std::iter::once((at, head)).chain(tail)
}

/// Spreads every bit of a number over all of the result (the last steps of `SplitMix64`).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Bytes into a running digest.
pub(super) fn fold(digest: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let step = |digest: u64, word: u64| {
        (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let digest = words.iter().fold(digest, |sum, word| step(sum, u64::from_le_bytes(*word)));
    let digest = rest.iter().fold(digest, |sum, &byte| step(sum, u64::from(byte)));
    mix(digest ^ bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_over_the_borders_of_pages_and_copies_stay_as_they_were() {
        let mut pages = Pages::default();
        pages.resize(3 * PAGE_LEN);
        pages.write(PAGE_LEN - 2, b"abcd");
        let copy = pages.clone();
        pages.zero(PAGE_LEN - 1, 2 * PAGE_LEN + 1);
        pages.write(3 * PAGE_LEN - 1, b"xyz");
        let mut expected = vec![0; 3 * PAGE_LEN];
        expected[PAGE_LEN - 2] = b'a';
        expected[3 * PAGE_LEN - 1] = b'x';
        assert_eq!(pages.to_vec(), expected);
        let mut read = [0; 4];
        assert!(copy.read(PAGE_LEN - 2, &mut read) && !copy.read(3 * PAGE_LEN - 1, &mut [0; 2]));
        assert_eq!(&read, b"abcd");
    }

    #[test]
    fn the_same_bytes_have_one_digest_however_they_came_to_be() {
        let (mut a, mut b) = (Pages::default(), Pages::default());
        a.resize(2 * PAGE_LEN);
        a.write(PAGE_LEN, b"x");
        a.write(PAGE_LEN, &[0]);
        b.resize(3 * PAGE_LEN);
        b.write(3 * PAGE_LEN - 1, b"y");
        b.resize(2 * PAGE_LEN);
        assert_eq!((a.digest(), a.filled().count()), (b.digest(), 0));
        b.write(7, b"z");
        assert_ne!(a.digest(), b.digest());
    }
}
