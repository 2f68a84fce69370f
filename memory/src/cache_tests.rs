//! The cache against a plain list; loaders of threads; panics and stale loads.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::store::Millis;

fn held<K: Hash + Eq + Clone, V: Copy>(cache: &LruMemoryCache<K, V>, keys: &[K]) -> Vec<Option<V>> {
    keys.iter().map(|key| cache.get(key).map(|value| *value)).collect()
}

#[test]
fn replacing_a_key_evicts_no_other_and_reading_renews() {
    let cache = LruMemoryCache::new(Capacity::Entries(3));
    for key in 1..=3 {
        cache.insert(key, key * 10, None);
    }
    assert_eq!(cache.insert(2, 21, None).as_deref(), Some(&20));
    assert_eq!(held(&cache, &[1, 2, 3]), [Some(10), Some(21), Some(30)]);
    cache.get(&1);
    cache.insert(4, 40, None);
    assert_eq!(held(&cache, &[1, 2, 3, 4]), [Some(10), None, Some(30), Some(40)]);
    assert_eq!(cache.remove(&3).as_deref(), Some(&30));
    assert_eq!(cache.remove(&3), None);
    cache.clear();
    assert!(cache.is_empty());
    let nothing = LruMemoryCache::new(Capacity::Entries(0));
    nothing.insert(1, 1, None);
    assert!(nothing.is_empty());
}

#[test]
fn a_cached_nothing_is_a_hit() {
    let cache: LruMemoryCache<u8, Option<u8>> = LruMemoryCache::new(Capacity::Entries(2));
    cache.insert(1, None, None);
    assert_eq!(cache.get(&1).as_deref(), Some(&None));
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 0));
}

#[test]
fn expired_entries_are_misses_and_make_room_first() {
    let clock = Clock::manual(Millis(0));
    let cache = LruMemoryCache::new(Capacity::Entries(3)).clock(clock.clone());
    cache.insert(1, 1, None);
    cache.insert(2, 2, Some(Duration::from_secs(1)));
    cache.insert(3, 3, Some(Duration::from_secs(5)));
    cache.insert(4, 4, Some(Duration::ZERO));
    clock.advance(Duration::from_secs(1));
    cache.insert(5, 5, None);
    assert_eq!(held(&cache, &[1, 2, 3, 4, 5]), [Some(1), None, Some(3), None, Some(5)]);
    clock.advance(Duration::from_secs(4));
    assert_eq!(cache.insert(3, 33, None), None, "what expired is not there before");
    let stats = cache.stats();
    assert_eq!((stats.evictions, stats.expirations, stats.entries), (0, 2, 3));
}

#[test]
fn threads_that_ask_for_one_key_load_it_once() {
    let cache = LruMemoryCache::with_parts(Capacity::Entries(100), 4);
    let loads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for key in 0..20_u64 {
                    let load = || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        std::thread::park_timeout(Duration::from_millis(1));
                        Ok::<_, ()>(key * 2)
                    };
                    assert_eq!(*cache.get_or_try_insert(key, load).unwrap(), key * 2);
                }
            });
        }
    });
    assert_eq!(loads.into_inner(), 20);
    assert_eq!(cache.stats().loads, 20);
}

#[test]
fn a_loader_that_fails_or_panics_lets_the_next_one_try() {
    let cache: LruMemoryCache<u8, u8> = LruMemoryCache::new(Capacity::Entries(2));
    assert_eq!(cache.get_or_try_insert(1, || Err("no")).unwrap_err(), "no");
    let panicking = || cache.get_or_try_insert(1, || -> Result<u8, ()> { panic!("loader") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
    assert_eq!(*cache.get_or_try_insert(1, || Ok::<_, ()>(7)).unwrap(), 7);
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (3, 1));
}

#[test]
fn what_was_loaded_before_a_newer_insert_does_not_replace_it() {
    let cache: LruMemoryCache<u8, u8> = LruMemoryCache::new(Capacity::Entries(2));
    let loaded = cache.get_or_try_insert(1, || {
        cache.insert(1, 9, None);
        Ok::<_, ()>(1)
    });
    assert_eq!(*loaded.unwrap(), 1, "who loads gets what was loaded");
    assert_eq!(held(&cache, &[1]), [Some(9)]);
    let loaded = cache.get_or_try_insert(2, || {
        cache.remove(&2);
        Ok::<_, ()>(2)
    });
    assert_eq!((*loaded.unwrap(), held(&cache, &[2])), (2, vec![None]));
}

/// A cache as a list, the oldest first.
#[derive(Default)]
struct Plain {
    items: Vec<(u8, u64, Option<u64>)>,
}

impl Plain {
    fn get(&mut self, key: u8, now: u64) -> Option<u64> {
        let index = self.items.iter().position(|(found, ..)| *found == key)?;
        let item = self.items.remove(index);
        if item.2.is_some_and(|deadline| deadline <= now) {
            return None;
        }
        self.items.push(item);
        Some(item.1)
    }

    fn insert(&mut self, (key, value): (u8, u64), ttl: Option<u64>, now: u64, capacity: u64) {
        self.items.retain(|(found, ..)| *found != key);
        if value > capacity {
            return;
        }
        while self.items.iter().map(|(_, weight, _)| weight).sum::<u64>() + value > capacity {
            let deadline = |item: &(u8, u64, Option<u64>)| item.2.filter(|at| *at <= now);
            let expired = (0..self.items.len()).filter(|i| deadline(&self.items[*i]).is_some());
            let index = expired.min_by_key(|i| self.items[*i].2).unwrap_or(0);
            self.items.remove(index);
        }
        self.items.push((key, value, ttl.map(|ttl| now + ttl)));
    }
}

proptest! {
    #[test]
    fn the_cache_is_a_list_in_order_of_use(
        steps in proptest::collection::vec((0_u8..6, 0_u8..5, 1_u64..8), 0..200),
    ) {
        let clock = Clock::manual(Millis(0));
        let weigher: Weigher<u8, u64> = Box::new(|_, value| *value);
        let cache = LruMemoryCache::new(Capacity::Bytes(12, weigher)).clock(clock.clone());
        let mut plain = Plain::default();
        for (key, kind, value) in steps {
            let now = clock.now().0;
            match kind {
                0 => prop_assert_eq!(cache.get(&key).map(|value| *value), plain.get(key, now)),
                1 => {
                    let removed = cache.remove(&key).map(|value| *value);
                    prop_assert_eq!(removed, plain.get(key, now));
                    plain.items.retain(|(found, ..)| *found != key);
                }
                2 => {
                    clock.advance(Duration::from_millis(value));
                }
                // Deadlines that no two entries share: which of two goes first is open.
                3 => {
                    let ttl = 8 + (now * 7 + u64::from(key)) % 5;
                    let shared = plain.items.iter().any(|item| item.2 == Some(now + ttl));
                    if !shared {
                        cache.insert(key, value, Some(Duration::from_millis(ttl)));
                        plain.insert((key, value), Some(ttl), now, 12);
                    }
                }
                _ => {
                    cache.insert(key, value * 2, None);
                    plain.insert((key, value * 2), None, now, 12);
                }
            }
            let state = cache.parts[0].state.lock();
            state.table.validate();
            prop_assert!(state.table.weight() <= 12);
            prop_assert_eq!(state.table.len(), plain.items.len());
        }
    }
}
