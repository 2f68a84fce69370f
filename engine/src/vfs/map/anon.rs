//! Anonymous memory for the index, the hot tier and marks, and hints to the processor.
//! The part of `map` without files; its invariant M1 holds here too.
#![expect(unsafe_code, reason = "a part of the one module that turns addresses into slices")]

use std::io;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(miri))]
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::vfs::map::{Base, checked_len};

#[cfg(not(miri))]
pub(super) type AnonMemory = MmapRaw;
#[cfg(miri)]
pub(super) type AnonMemory = HeapMemory;

/// Anonymous zeroed memory of whole pages, owned by one holder.
#[derive(Debug)]
pub(crate) struct AnonMap {
    pub(super) base: Base,
    pub(super) len_bytes: usize,
    pub(super) memory: AnonMemory,
}

impl AnonMap {
    /// `len_bytes` zero bytes. `huge` asks for huge pages where the system grants them.
    pub(crate) fn new(len_bytes: usize, huge: bool) -> io::Result<Self> {
        let memory = anon_memory(checked_len(len_bytes as u64)?.max(1), huge)?;
        Ok(Self { base: Base(memory.as_mut_ptr()), len_bytes, memory })
    }

    /// The bytes.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `base` begins `len_bytes` initialised bytes (M1; the kernel zeroed them). Only
        // `as_mut_slice` and `give_back` change them, and both take `&mut self`.
        unsafe { slice::from_raw_parts(self.base.0, self.len_bytes) }
    }

    /// The bytes, to be changed.
    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes this the only view.
        unsafe { slice::from_raw_parts_mut(self.base.0, self.len_bytes) }
    }

    /// Gives the whole pages inside `from..to` back to the system and says how many bytes that
    /// were; they read as zeros from then on. The bytes of broken pages at both ends stay.
    pub(crate) fn give_back(&mut self, from: usize, to: usize) -> usize {
        let range = whole_pages(from, to.min(self.len_bytes));
        if give_back_pages(&self.memory, &range) {
            return range.len();
        }
        if let Some(bytes) = self.as_mut_slice().get_mut(range) {
            bytes.fill(0);
        }
        0
    }

    /// What it takes of the address space, in whole pages: the charge as long as nothing was given
    /// back.
    pub(crate) fn charged_len(&self) -> usize {
        self.len_bytes.next_multiple_of(page_len())
    }
}

/// Anonymous zeroed memory as atomic words, shared by threads without a lock.
#[derive(Debug)]
pub(crate) struct AtomicMap {
    /// Only its address is used: nobody takes a slice of bytes of it.
    area: AnonMap,
}

impl AtomicMap {
    /// `len_bytes`, a multiple of 8, of zero words. `huge` as in [`AnonMap::new`].
    pub(crate) fn new(len_bytes: usize, huge: bool) -> io::Result<Self> {
        assert!(len_bytes.is_multiple_of(8), "atomic map of {len_bytes} bytes");
        Ok(Self { area: AnonMap::new(len_bytes, huge)? })
    }

    /// The words; the first begins a page.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        #[expect(clippy::cast_ptr_alignment, reason = "maps begin at a page, Miri's at a word")]
        let words = self.area.base.0.cast::<AtomicU64>();
        debug_assert!(words.is_aligned(), "pages and words of the heap are aligned");
        // SAFETY: `base` begins `len_bytes / 8` words of initialised memory (M1), aligned to 8,
        // which nobody ever sees but as these atomics: `AtomicMap` lends no `&[u8]`.
        unsafe { slice::from_raw_parts(words, self.area.len_bytes / 8) }
    }

    /// Asks the processor for the cache line of a word, without waiting for it.
    #[inline]
    pub(crate) fn prefetch_word(&self, index: usize) {
        if let Some(word) = self.words().get(index) {
            prefetch_line(std::ptr::from_ref(word).cast());
        }
    }

    /// Gives the whole pages inside the bytes `from..to` back to the system and says how many
    /// bytes that were; their words become 0.
    ///
    /// Threads may use the words meanwhile: for each of them this is a relaxed store of 0 at some
    /// moment within the call. An aligned word never straddles pages, and the kernel hands a page
    /// to somebody else only after no processor can reach it any more.
    pub(crate) fn give_back(&self, from: usize, to: usize) -> usize {
        let range = whole_pages(from, to.min(self.area.len_bytes));
        if give_back_pages(&self.area.memory, &range) {
            return range.len();
        }
        for word in self.words().get(range.start / 8..range.end / 8).unwrap_or_default() {
            word.store(0, Ordering::Relaxed);
        }
        0
    }
}

/// A mark that a child made by `fork` does not have: asking for it costs one load, where asking for
/// the number of the process costs a call of the kernel.
#[derive(Debug)]
pub(crate) struct ForkMark {
    page: AtomicMap,
}

impl ForkMark {
    /// The mark of this process. Fails where the kernel cannot wipe a page at `fork`.
    pub(crate) fn new() -> io::Result<Self> {
        let page = AtomicMap::new(page_len(), false)?;
        wipe_on_fork(&page.area)?;
        if let Some(word) = page.words().first() {
            word.store(1, Ordering::Relaxed);
        }
        Ok(Self { page })
    }

    /// Whether this is the process that made the mark.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.page.words().first().is_some_and(|word| word.load(Ordering::Relaxed) == 1)
    }
}

/// Bytes of a cache line of the processors that are asked for lines.
pub(super) const LINE_LEN: usize = 64;

/// Asks the processor for the cache line at this address.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program can see and never faults, whatever the
    // address; every processor of this architecture has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
#[inline]
pub(super) fn prefetch_line(_address: *const u8) {}

/// Asks the processor for the memory of `items`, without waiting for it.
#[inline]
pub(crate) fn prefetch_items<T>(items: &[T]) {
    let start = items.as_ptr().cast::<u8>();
    for at in (0..size_of_val(items)).step_by(LINE_LEN) {
        prefetch_line(start.wrapping_add(at));
    }
}

/// Bytes of a page of this system.
pub(crate) fn page_len() -> usize {
    if cfg!(miri) { 4096 } else { rustix::param::page_size() }
}

/// The whole pages inside `from..to`; empty when there are none.
fn whole_pages(from: usize, to: usize) -> Range<usize> {
    let page = page_len();
    let start = from.checked_next_multiple_of(page).unwrap_or(usize::MAX);
    let end = to - to % page;
    if start < end { start..end } else { 0..0 }
}

#[cfg(not(miri))]
pub(super) fn anon_memory(len_bytes: usize, huge: bool) -> io::Result<AnonMemory> {
    let memory = MmapRaw::from(MmapOptions::new().len(len_bytes).map_anon()?);
    if huge {
        drop(memory.advise(Advice::HugePage));
    }
    Ok(memory)
}

/// Whether the pages of `range` became zeros. `range` is whole pages of a private anonymous map.
#[cfg(not(miri))]
fn give_back_pages(memory: &AnonMemory, range: &Range<usize>) -> bool {
    if range.is_empty() {
        return true;
    }
    assert!(range.end <= memory.len(), "give back up to {} of {}", range.end, memory.len());
    // SAFETY: the pages lie inside this private anonymous map (asserted), whose only views are
    // either none (`AnonMap`, `&mut self`) or atomics (`AtomicMap`): turning them to zeros is an
    // ordinary write to the former and an atomic store to the latter.
    let given = unsafe {
        memory.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
    };
    given.is_ok()
}

#[cfg(not(miri))]
fn wipe_on_fork(area: &AnonMap) -> io::Result<()> {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the range is the whole area, which this module mapped and still owns (M1). The advice
    // changes what a child of `fork` sees there, and nothing in this process.
    let advised =
        unsafe { madvise(area.base.0.cast(), area.charged_len(), Advice::LinuxWipeOnFork) };
    advised.map_err(io::Error::from)
}

#[cfg(miri)]
fn wipe_on_fork(_area: &AnonMap) -> io::Result<()> {
    Ok(())
}

#[cfg(miri)]
pub(super) fn anon_memory(len_bytes: usize, _huge: bool) -> io::Result<AnonMemory> {
    let mut words = vec![0_u64; len_bytes.div_ceil(8)];
    let base = Base(words.as_mut_ptr().cast());
    Ok(AnonMemory { _words: words, base })
}

#[cfg(miri)]
fn give_back_pages(_memory: &AnonMemory, range: &Range<usize>) -> bool {
    range.is_empty()
}

/// Words of the heap in place of pages, for Miri, which knows no `madvise`.
#[cfg(miri)]
#[derive(Debug)]
pub(super) struct HeapMemory {
    _words: Vec<u64>,
    base: Base,
}

#[cfg(miri)]
impl HeapMemory {
    pub(super) fn as_mut_ptr(&self) -> *mut u8 {
        self.base.0
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn pages_given_back_read_as_zeros_and_broken_pages_stay() {
        let page = page_len();
        let mut area = AnonMap::new(page * 3 + 10, true).unwrap();
        area.as_mut_slice().fill(7);
        let given = area.give_back(1, page * 3 + 10);
        assert_eq!(given, if cfg!(miri) { 0 } else { page * 2 });
        assert!(area.as_slice().iter().take(page).all(|&byte| byte == 7));
        assert!(area.as_slice().iter().skip(page).take(page * 2).all(|&byte| byte == 0));
        assert!(area.as_slice().iter().skip(page * 3).all(|&byte| byte == 7));
        assert_eq!(area.charged_len(), page * 4);
        assert_eq!(area.give_back(5, 3), 0);
    }

    #[test]
    fn words_given_back_become_zero_under_other_threads() {
        let page = page_len();
        let area = AtomicMap::new(page * 2, false).unwrap();
        assert_eq!(area.words().len(), page / 4);
        for word in area.words() {
            word.store(9, Ordering::Relaxed);
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                for word in area.words() {
                    assert!([0, 9].contains(&word.load(Ordering::Relaxed)));
                }
            });
            area.give_back(0, page);
        });
        let (gone, kept) = area.words().split_at(page / 8);
        assert!(gone.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert!(kept.iter().all(|word| word.load(Ordering::Relaxed) == 9));
    }

    #[test]
    fn an_area_of_no_bytes_is_empty() {
        assert!(AnonMap::new(0, false).unwrap().as_slice().is_empty());
        assert!(AtomicMap::new(0, false).unwrap().words().is_empty());
    }
}
