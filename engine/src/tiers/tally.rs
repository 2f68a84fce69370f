//! Counts of reads by who answered. Each thread adds on a line of its own: a counter that all share
//! would make them wait for each other at each read.
//! Knows threads by number; knows nothing of records.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// Lines of one store; threads that find none free share the last.
const LINES: usize = 32;
const SHARED: usize = LINES - 1;
const KINDS: usize = 4;

/// Who answered a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Hot = 0,
    Warm = 1,
    Cold = 2,
    Miss = 3,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    lines: [CachePadded<[AtomicU64; KINDS]>; LINES],
}

impl Tally {
    #[inline]
    pub(crate) fn add(&self, answer: Answer, by: u64) {
        let number = OWN.try_with(|own| own.0).unwrap_or(SHARED);
        let line = self.lines.get(number);
        let Some(count) = line.and_then(|line| line.get(answer as usize)) else { return };
        if number < SHARED {
            // Nobody else writes here while the thread lives.
            count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        } else {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self, answer: Answer) -> u64 {
        let counts = self.lines.iter().filter_map(|line| line.get(answer as usize));
        counts.fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }
}

/// Numbers below `SHARED`: the least that was never given out, and those that came back.
struct Numbers {
    next: usize,
    back: Vec<usize>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 0, back: Vec::new() });

thread_local! {
    static OWN: Number = Number::take();
}

/// A number that no other living thread has, or `SHARED`.
struct Number(usize);

impl Number {
    fn take() -> Self {
        let mut numbers = NUMBERS.lock();
        if let Some(number) = numbers.back.pop() {
            return Self(number);
        }
        let number = numbers.next.min(SHARED);
        numbers.next = (number + 1).min(SHARED);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if self.0 < SHARED {
            NUMBERS.lock().back.push(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn nothing_is_lost_with_more_threads_than_lines_and_as_they_come_and_go() {
        let tally = Tally::default();
        for _ in 0..3 {
            let all_here = Barrier::new(LINES * 2);
            std::thread::scope(|scope| {
                for _ in 0..LINES * 2 {
                    scope.spawn(|| {
                        tally.add(Answer::Miss, 1);
                        all_here.wait();
                        (0..100).for_each(|_| tally.add(Answer::Warm, 5));
                    });
                }
            });
        }
        let threads = 3 * LINES as u64 * 2;
        assert_eq!((tally.sum(Answer::Miss), tally.sum(Answer::Warm)), (threads, threads * 500));
        assert_eq!((tally.sum(Answer::Hot), tally.sum(Answer::Cold)), (0, 0));
    }
}
