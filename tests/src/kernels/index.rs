//! One bucket of the index: a reader beside a put or a relocation sees the entry before the change
//! or after it, never half of each.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::bucket::{IndexEntry, Snapshot, WORDS, look};
use crate::ids::{Location, Slot};
use crate::kernels::explore;

const TAG: u32 = 5;
/// Where the key's entry is in the bucket: its bits lie in the words 4 and 7.
const POSITION: usize = 4;

fn entry(tag: u32, slot: u32) -> IndexEntry {
    let location = Location::new(Slot(slot), slot * 8);
    IndexEntry { tag, location, tombstone: false, touched: false }
}

/// Slots between which both halves of a location differ.
const PLACES: [u32; 3] = [0x0_0003, 0xF_0055, 0x3_0FA0];

/// Writes an entry as `Table::replace` does; torn plants the violation: no version says that a
/// writer is inside.
fn replace(words: &[AtomicU64; WORDS], to: IndexEntry, torn: bool) {
    let mut bucket = Snapshot::read(words);
    bucket.set(POSITION, Some(to));
    if torn {
        let scratch: [AtomicU64; WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        bucket.write(&scratch);
        for at in [POSITION, 7] {
            if let (Some(to), Some(from)) = (words.get(at), scratch.get(at)) {
                to.store(from.load(Ordering::Relaxed) & !(0xFFFF << 32), Ordering::Release);
            }
        }
    } else {
        bucket.write(words);
    }
}

/// Which of the places the index names.
fn place(words: &[AtomicU64; WORDS]) -> usize {
    let seen = look(words, TAG).first.map(|(_, entry)| entry.location.slot.0);
    let place = PLACES.iter().position(|&place| Some(place) == seen);
    place.unwrap_or_else(|| panic!("half an entry: {seen:x?}"))
}

/// A key's record moves twice while a reader looks it up twice.
pub fn a_reader_sees_an_entry_whole_beside_a_relocation(torn: bool) {
    explore(2, move || {
        let words: Arc<[AtomicU64; WORDS]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let [first, second, third] = PLACES;
        let mut bucket = Snapshot::read(&words);
        bucket.set(POSITION, Some(entry(TAG, first)));
        bucket.write(&words);
        let of = Arc::clone(&words);
        let writer = thread::spawn(move || {
            replace(&of, entry(TAG, second), torn);
            replace(&of, entry(TAG, third), torn);
        });
        let seen = [place(&words), place(&words)];
        assert!(seen.is_sorted(), "back from a newer record to an older one: {seen:?}");
        assert!(writer.join().is_ok());
        assert_eq!(place(&words), 2);
    });
}
