//! Who keeps the mapped bytes of which file: one count for each call site and file.
//!
//! A registry of every value would cost more than the read. Instead all values that one place in
//! the program took from one file share a `Pin`, and its reference count is their number. Taking a
//! value costs what it cost before, one reference count, and a look at a small table.

use std::ops::Range;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::value::Bytes;
use crate::vfs::map::Map;

/// A place in the program.
pub(crate) type Site = &'static Location<'static>;

/// Places in the program that a file tells apart; the rest of them count as one.
const SITES: usize = 32;

/// A file that values borrow from.
#[derive(Debug)]
struct PinnedFile {
    name: String,
    /// What its blocks take once it is unlinked; 0 while the store has it.
    retired_len: AtomicU64,
    /// Nothing new is taken from it: its table of sites is gone.
    closed: AtomicBool,
}

/// The values that one place in the program took from one file.
#[derive(Debug)]
pub(crate) struct Pin {
    map: Arc<Map>,
    file: Arc<PinnedFile>,
    /// `None` stands for all places beyond the first ones.
    site: Option<Site>,
    /// When the count last rose from zero, as coarse as the ticks.
    since_ms: AtomicU64,
    warned: AtomicBool,
}

impl Bytes for Pin {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.map.slice(range).unwrap_or(&[])
    }
}

/// The pins of one file, by call site. It goes with the file's handle; pins live on in values.
#[derive(Debug)]
pub(crate) struct FilePins {
    map: Arc<Map>,
    file: Arc<PinnedFile>,
    sites: [OnceLock<Arc<Pin>>; SITES],
    elsewhere: OnceLock<Arc<Pin>>,
}

impl FilePins {
    pub(crate) fn new(name: String, map: Arc<Map>) -> Self {
        let (retired_len, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        let file = Arc::new(PinnedFile { name, retired_len, closed });
        let sites = [const { OnceLock::new() }; SITES];
        Self { map, file, sites, elsewhere: OnceLock::new() }
    }

    /// What a value holds that is taken at this place in the program.
    #[inline]
    pub(crate) fn take(&self, pins: &Pins, site: Site) -> Arc<Pin> {
        let from = slot_of(site);
        for slot in self.sites.iter().skip(from).chain(self.sites.iter().take(from)) {
            let pin = slot.get_or_init(|| pins.enter(self, Some(site)));
            if pin.site.is_some_and(|known| std::ptr::eq(known, site)) {
                return pin.taken(pins);
            }
        }
        self.elsewhere.get_or_init(|| pins.enter(self, None)).taken(pins)
    }

    /// The file is unlinked; so many bytes stay on the device while a value holds it.
    pub(crate) fn retire(&self, len: u64) {
        self.file.retired_len.store(len.max(1), Ordering::Release);
    }
}

impl Drop for FilePins {
    fn drop(&mut self) {
        self.sites.iter_mut().chain([&mut self.elsewhere]).for_each(|slot| drop(slot.take()));
        self.file.closed.store(true, Ordering::Release);
    }
}

/// Where the search for a site begins.
fn slot_of(site: Site) -> usize {
    let address = std::ptr::from_ref(site).addr() as u64;
    usize::try_from(address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0) % SITES
}

impl Pin {
    #[inline]
    fn taken(self: &Arc<Self>, pins: &Pins) -> Arc<Self> {
        if Arc::strong_count(self) == 1 {
            self.since_ms.store(pins.tick_ms.load(Ordering::Relaxed), Ordering::Relaxed);
            self.warned.store(false, Ordering::Relaxed);
        }
        Arc::clone(self)
    }
}

/// Values that are alive: how many, since when, of which place in the program and which file.
#[derive(Debug, Clone)]
pub(crate) struct HeldPin {
    pub site: Option<Site>,
    pub file: String,
    pub count: u64,
    pub since_ms: u64,
    /// Bytes of the file that they keep mapped.
    pub mapped_len: u64,
    /// Bytes on the device that would be free without them.
    pub retired_len: u64,
}

/// All pins of a store.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// Monotonic milliseconds, as of the last tick: a clock is too dear for a read.
    tick_ms: AtomicU64,
    /// A leaf lock.
    entered: Mutex<Entered>,
}

#[derive(Debug, Default)]
struct Entered {
    pins: Vec<Weak<Pin>>,
    /// Those that are gone are forgotten when there are so many.
    sweep_at: usize,
}

impl Pins {
    pub(crate) fn tick(&self, now_ms: u64) {
        self.tick_ms.store(now_ms, Ordering::Relaxed);
    }

    fn enter(&self, of: &FilePins, site: Option<Site>) -> Arc<Pin> {
        let pin = Arc::new(Pin {
            map: Arc::clone(&of.map),
            file: Arc::clone(&of.file),
            site,
            since_ms: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        });
        let mut entered = self.entered.lock();
        if entered.pins.len() >= entered.sweep_at {
            entered.pins.retain(|pin| pin.strong_count() > 0);
            entered.sweep_at = entered.pins.len() * 2 + 64;
        }
        entered.pins.push(Arc::downgrade(&pin));
        pin
    }

    /// Everything that is held now.
    pub(crate) fn held(&self) -> Vec<HeldPin> {
        let entered = self.entered.lock();
        entered.pins.iter().filter_map(Weak::upgrade).filter_map(|pin| pin.held()).collect()
    }

    /// What has been held since `before_ms` or longer and was not handed out here yet.
    pub(crate) fn take_old(&self, before_ms: u64) -> Vec<HeldPin> {
        let entered = self.entered.lock();
        let pins = entered.pins.iter().filter_map(Weak::upgrade);
        let old = pins.filter_map(|pin| {
            let held = pin.held().filter(|held| held.since_ms <= before_ms)?;
            (!pin.warned.swap(true, Ordering::Relaxed)).then_some(held)
        });
        old.collect()
    }

    /// Bytes on the device of unlinked files that values still hold.
    pub(crate) fn retired_len(&self) -> u64 {
        let mut files: Vec<(String, u64)> =
            self.held().into_iter().map(|held| (held.file, held.retired_len)).collect();
        files.sort();
        files.dedup();
        files.iter().map(|(_, len)| len).sum()
    }
}

impl Pin {
    /// What is alive of it, but for the caller's own reference.
    fn held(self: &Arc<Self>) -> Option<HeldPin> {
        let own = if self.file.closed.load(Ordering::Acquire) { 1 } else { 2 };
        let count = Arc::strong_count(self).saturating_sub(own) as u64;
        (count > 0).then(|| HeldPin {
            site: self.site,
            file: self.file.name.clone(),
            count,
            since_ms: self.since_ms.load(Ordering::Relaxed),
            mapped_len: self.map.published(),
            retired_len: self.file.retired_len.load(Ordering::Acquire),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn file() -> FilePins {
        FilePins::new("a".into(), Map::anonymous(64, b"bytes", None).unwrap())
    }

    fn here() -> Site {
        Location::caller()
    }

    #[test]
    fn values_are_counted_by_place_and_since_their_count_was_last_zero() {
        let (pins, file, site) = (Pins::default(), file(), here());
        pins.tick(5);
        let one = file.take(&pins, site);
        pins.tick(9);
        let two = file.take(&pins, site);
        let held = pins.held();
        assert_eq!(held.iter().map(|h| (h.count, h.since_ms)).collect::<Vec<_>>(), [(2, 5)]);
        drop(one);
        assert_eq!(pins.held()[0].since_ms, 5);
        drop(two);
        assert!(pins.held().is_empty());
        let _again = file.take(&pins, site);
        assert_eq!(pins.held()[0].since_ms, 9);
    }

    #[test]
    fn a_value_keeps_an_unlinked_file_and_is_told_once_when_it_is_old() {
        let (pins, file) = (Pins::default(), file());
        let pin = file.take(&pins, here());
        file.retire(4096);
        drop(file);
        assert_eq!((pins.retired_len(), pins.held()[0].count), (4096, 1));
        assert_eq!(pin.bytes(0..5), b"bytes");
        assert_eq!((pins.take_old(0).len(), pins.take_old(0).len()), (1, 0));
        drop(pin);
        assert_eq!((pins.retired_len(), pins.held().len()), (0, 0));
    }

    #[test]
    fn more_places_than_a_file_tells_apart_count_as_one() {
        let (pins, file) = (Pins::default(), file());
        static PLACES: LazyLock<Vec<Location<'static>>> =
            LazyLock::new(|| (0..SITES + 5).map(|_| *here()).collect());
        let taken: Vec<_> = PLACES.iter().map(|site| file.take(&pins, site)).collect();
        let held = pins.held();
        assert_eq!(held.iter().map(|held| held.count).sum::<u64>(), taken.len() as u64);
        assert_eq!(held.iter().filter(|held| held.site.is_none()).count(), 1);
    }
}
