//! Which keys a tag means, sorting them in, and letting go of old versions: the steps of each.
//! Knows index, segments and versions; knows nothing of who walks, or when a step is taken.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::error::Error;
use crate::format::block::put_sort_key;
use crate::ids::{Incarnation, Location};
use crate::tiers::Tiers;
use crate::tiers::image::{Image, Order};
use crate::tiers::moments::{Holder, Moment};
use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::{Hint, Leaf};
use crate::warm::index::order::{EachKey, KeySource, MERGE_PIECE};

/// Homes of the index that are walked for each time the append lock is taken.
const HOMES_PER_PIECE: u64 = 512;
/// Versions that are looked at for each time the append lock is taken.
const VERSIONS_PER_PIECE: usize = 1024;
/// Leaves that one step of sweeping looks at.
const LEAVES_PER_PIECE: usize = 64;
/// Keys after which a put sorts some in, while too many wait.
const HELP_EVERY: usize = 32;
/// How often damage must be seen in the same place before it is believed.
const DAMAGE_SEEN_MIN: u32 = 3;

/// What is known of the order of the keys that opening found.
#[derive(Debug)]
pub(crate) enum Unsorted {
    /// All of them are in order, or among the fresh ones.
    Nothing,
    /// They are taken from the index, from this tag on.
    From(u64),
    /// An image keeps their order. Its hints hold for the segments of that time, of which so many
    /// had entered their table.
    Image { image: Image, entered: u32 },
}

impl Unsorted {
    /// What there is to do for an index of so many keys.
    pub(crate) fn of(image: Option<Image>, keys: u64, entered: u32) -> Self {
        match image {
            Some(image) => Self::Image { image, entered },
            None if keys > 0 => Self::From(0),
            None => Self::Nothing,
        }
    }
}

/// The keys of the index as sort keys.
pub(crate) struct IndexedKeys<'t> {
    tiers: &'t Tiers,
    /// The incarnation asked about last, and whether its keys are kept in order.
    ordered: Cell<(Incarnation, bool)>,
    places: RefCell<Vec<Location>>,
}

impl<'t> IndexedKeys<'t> {
    pub(crate) fn new(tiers: &'t Tiers) -> Self {
        let ordered = Cell::new((Incarnation(0), false));
        Self { tiers, ordered, places: RefCell::default() }
    }

    fn is_ordered(&self, incarnation: Incarnation) -> bool {
        let (asked, ordered) = self.ordered.get();
        if asked == incarnation {
            return ordered;
        }
        let ordered = self.tiers.keyspaces.is_ordered(incarnation);
        self.ordered.set((incarnation, ordered));
        ordered
    }

    /// Collects the sort keys of a tag, each behind its length; `false` when something moved
    /// meanwhile. Damage is counted.
    fn collect(&self, tag: u32, keys: &mut Vec<(Vec<u8>, Hint)>, damaged: &mut usize) -> bool {
        let tiers = self.tiers;
        let table = tiers.segments.load();
        let mut places = self.places.borrow_mut();
        places.clear();
        let found = tiers.index.peek(tag, |entry| {
            places.push(entry.location);
            Ok::<_, Error>(false)
        });
        let named = places.len();
        places.extend(tiers.versions.warm_places(tag));
        for (number, &place) in places.iter().enumerate() {
            let Some(segment) = table.of(place) else { return false };
            match segment.record(u64::from(place.offset)) {
                Ok(record) if !self.is_ordered(record.header.incarnation) => {}
                Ok(record) if tiers.has_tag(&record, tag) => {
                    let mut key = Vec::with_capacity(record.key.len() + 4);
                    put_sort_key(&mut key, record.header.incarnation, record.key);
                    if keys.iter().all(|(known, _)| *known != key) {
                        let hint = if number < named { Hint::at(place) } else { Hint::NONE };
                        keys.push((key, hint));
                    }
                }
                // Of a key that rotted nobody knows the place.
                _ => *damaged += 1,
            }
        }
        found.is_ok() && Arc::ptr_eq(&table, &tiers.segments.load())
    }
}

impl KeySource for IndexedKeys<'_> {
    fn each_key(&self, tag: u32, each: &mut EachKey<'_>) {
        let mut keys = Vec::new();
        let mut seen = 0;
        loop {
            let mut damaged = 0;
            keys.clear();
            if !self.collect(tag, &mut keys, &mut damaged) {
                continue;
            }
            seen += 1;
            if damaged == 0 || seen >= DAMAGE_SEEN_MIN {
                for (key, hint) in &keys {
                    each(Some((key, *hint)));
                }
                if damaged > 0 {
                    each(None);
                }
                return;
            }
        }
    }

    fn prefetch(&self, tags: &[u32]) {
        self.tiers.prefetch_records(tags);
    }

    fn entered(&self) -> u32 {
        self.tiers.segments.load().entered()
    }

    fn renew(&self, leaf: &mut Leaf, entered: u32) {
        let (table, before) = (self.tiers.segments.load(), leaf.entered());
        leaf.renew(entered, |place| {
            table.of(place).is_some_and(|segment| segment.entered() <= before)
        });
    }
}

impl Tiers {
    /// Holds the moment that is visible now.
    pub(crate) fn hold(&self, holder: Holder) -> Arc<Moment> {
        let _no_writer = self.append.lock();
        self.moments.hold(self.visible(), holder)
    }

    /// Bytes of memory that the order of the warm tier takes: leaves, and marks of the segments.
    pub(crate) fn order_len(&self) -> u64 {
        let marks: u64 = self.segments.load().iter().map(|segment| segment.marks_len()).sum();
        self.order.charged_len() + marks
    }

    /// Loads the index entries of these tags, then the records that they name, into the cache:
    /// misses that overlap cost a fraction of those that wait for each other.
    pub(crate) fn prefetch_records(&self, tags: &[u32]) {
        let table = self.segments.load();
        self.index.peek_all(tags, |_, entry| {
            if let Some(segment) = table.of(entry.location) {
                segment.prefetch(u64::from(entry.location.offset));
            }
        });
    }

    /// Puts the order back that the image keeps, or has the keys sorted anew; then the image goes.
    pub(crate) fn restore_order(&self) {
        let mut unsorted = self.unsorted.lock();
        let Unsorted::Image { image, entered } = &*unsorted else { return };
        let id = image.id;
        let next = match image.order(*entered) {
            Ok(Some(Order { leaves, loose })) => {
                self.order.restore(leaves);
                for tag in loose {
                    self.order.push(tag);
                }
                Unsorted::Nothing
            }
            Ok(None) => Unsorted::From(0),
            Err(error) => {
                tracing::warn!(%error, "an index image is not used for the order of keys");
                Unsorted::From(0)
            }
        };
        *unsorted = next;
        drop(unsorted);
        self.discard_file(id);
    }

    /// Whether every key is in order, or among the fresh ones.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(&*self.unsorted.lock(), Unsorted::Nothing)
    }

    /// Sorts a piece of new keys in. Answers whether there was anything to do.
    pub(crate) fn sort_piece(&self, least: usize) -> bool {
        self.restore_order();
        while self.order.fresh_count() < MERGE_PIECE && self.push_unsorted() {}
        if self.order.fresh_count() < least.max(1) {
            return false;
        }
        self.order.merge(MERGE_PIECE, &IndexedKeys::new(self));
        true
    }

    /// Sorts a few keys in when more wait than the memory budget allows: movement is behind, so a
    /// put that brings more takes part, twice as many as came.
    pub(crate) fn help_sort(&self, written: usize) {
        let waiting = self.order.fresh_count();
        if waiting > self.scratch().fresh_max() && waiting % HELP_EVERY < written {
            let most = HELP_EVERY.max(written).saturating_mul(2).min(MERGE_PIECE);
            self.order.merge(most, &IndexedKeys::new(self));
        }
    }

    /// Returns when every key that is in the index now is in order.
    pub(crate) fn sort_all(&self) {
        while self.sort_piece(1) {}
    }

    /// Takes one piece of the keys that opening found; `false` when all of them were taken.
    fn push_unsorted(&self) -> bool {
        let mut unsorted = self.unsorted.lock();
        let Unsorted::From(from) = *unsorted else { return false };
        let append = self.append.lock();
        let next = self.index.walk(&append.index, from, HOMES_PER_PIECE, |entry| {
            self.order.push(entry.tag);
        });
        *unsorted = next.map_or(Unsorted::Nothing, Unsorted::From);
        true
    }

    /// Rewrites leaves while the order holds many more keys than the index.
    pub(crate) fn sweep_order(&self, from: &mut Fence) -> bool {
        let entries = self.order.entry_count();
        if from.is_empty() && entries < 4096 + self.index.count() * 3 / 2 {
            return false;
        }
        let next = self.order.sweep(from, LEAVES_PER_PIECE, &IndexedKeys::new(self));
        *from = next.unwrap_or_default();
        true
    }

    /// Ends moments that lasted or pinned too much.
    pub(crate) fn bound_versions(&self) {
        if self.versions.charged_len() > self.options.memory_budget / 8 {
            self.moments.expire_oldest();
        }
    }

    /// Lets go of old versions, and of ended incarnations, that no moment needs any more.
    pub(crate) fn prune_versions(&self) {
        self.moments.expire_aged(self.clock.monotonic_ms());
        self.bound_versions();
        if !self.moments.take_released() {
            return;
        }
        let mut from = None;
        loop {
            let mut append = self.append.lock();
            let mut gone = Vec::new();
            from = self.versions.prune(
                from,
                VERSIONS_PER_PIECE,
                |seq, until| self.moments.need_between(seq, until),
                |place| gone.push(place),
            );
            for place in gone {
                append.unpin_place(place);
            }
            if from.is_none() {
                break;
            }
        }
        let released = self.keyspaces.release_kept(|ended| self.moments.any_before(ended));
        if !released.is_empty() {
            let mut append = self.append.lock();
            for incarnation in released {
                append.clear_accounts(incarnation);
            }
        }
    }
}
