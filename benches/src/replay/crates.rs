//! Caches of other crates, as their documentation recommends them.

use std::io;

use crate::replay::Cache;

/// Keys of a trace in another order.
fn scrambled(key: u32) -> u64 {
    u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// moka: W-TinyLFU.
#[derive(Debug)]
pub(crate) struct Moka {
    cache: moka::sync::Cache<u64, ()>,
    touches: u32,
}

impl Moka {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { cache: moka::sync::Cache::new(capacity as u64), touches: 0 }
    }
}

impl Cache for Moka {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        let key = scrambled(key);
        let hit = self.cache.get(&key).is_some();
        if !hit {
            self.cache.insert(key, ());
        }
        // It does its work in batches; with none outstanding it is at its best.
        self.touches = self.touches.wrapping_add(1);
        if !hit || self.touches.is_multiple_of(16) {
            self.cache.run_pending_tasks();
        }
        Ok(hit)
    }
}

/// `quick_cache`, its form for one thread.
#[derive(Debug)]
pub(crate) struct QuickCache {
    cache: quick_cache::unsync::Cache<u64, ()>,
}

impl QuickCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { cache: quick_cache::unsync::Cache::new(capacity) }
    }
}

impl Cache for QuickCache {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        let key = scrambled(key);
        let hit = self.cache.get(&key).is_some();
        if !hit {
            self.cache.insert(key, ());
        }
        Ok(hit)
    }
}
