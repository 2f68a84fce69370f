//! A cache of pages bounded by bytes: one load for each, whoever asks at the same time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use terrace_memory::cache::{Capacity, LruMemoryCache};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let weigh = |_: &u32, page: &Vec<u8>| page.len() as u64;
    let cache = LruMemoryCache::new(Capacity::Bytes(10_000, Box::new(weigh)));
    let loads = AtomicU32::new(0);
    let load = |number: u32| -> Result<Vec<u8>, std::io::Error> {
        loads.fetch_add(1, Ordering::Relaxed);
        Ok(vec![number.to_le_bytes()[0]; 1000])
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| cache.get_or_try_insert(7, || load(7)));
        }
    });
    assert_eq!(loads.load(Ordering::Relaxed), 1, "four asked, one loaded");

    for number in 100..120 {
        cache.insert(number, load(number)?, Some(Duration::from_mins(1)));
    }
    assert!(cache.get(&7).is_none(), "the least recently used went first");
    assert!(cache.get(&119).is_some_and(|page| page.len() == 1000));
    let stats = cache.stats();
    assert!(stats.entries <= 10);
    println!("{stats:?}");
    Ok(())
}
