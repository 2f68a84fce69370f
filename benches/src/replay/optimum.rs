//! The optimum (Belady 1966): what is needed last leaves, or does not enter.
#![expect(clippy::indexing_slicing, reason = "keys of a trace are dense")]

use std::collections::BinaryHeap;
use std::io;

use crate::replay::{Cache, Trace};

const NEVER: u32 = u32::MAX;

/// Knows for each request when its key comes next.
#[derive(Debug)]
pub(crate) struct Optimum {
    next: Vec<u32>,
    at: usize,
    /// When each resident key comes next; 0 where it is not resident.
    due: Vec<u32>,
    by_due: BinaryHeap<(u32, u32)>,
    count: usize,
    capacity: usize,
}

impl Optimum {
    pub(crate) fn new(capacity: usize, trace: &Trace) -> Self {
        let mut last = vec![NEVER; trace.distinct];
        let mut next = vec![NEVER; trace.keys.len()];
        for (at, &key) in trace.keys.iter().enumerate().rev() {
            next[at] = last[key as usize];
            last[key as usize] = u32::try_from(at).unwrap_or(NEVER);
        }
        let due = vec![0; trace.distinct];
        Self { next, at: 0, due, by_due: BinaryHeap::new(), count: 0, capacity }
    }
}

impl Cache for Optimum {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        let due = self.next[self.at];
        self.at += 1;
        let hit = self.due[key as usize] != 0;
        if due == NEVER {
            self.count -= usize::from(hit);
            self.due[key as usize] = 0;
            return Ok(hit);
        }
        if !hit && self.count == self.capacity {
            while let Some(&(last, victim)) = self.by_due.peek() {
                if self.due[victim as usize] == last {
                    if last <= due {
                        return Ok(false);
                    }
                    self.due[victim as usize] = 0;
                    self.count -= 1;
                    break;
                }
                self.by_due.pop();
            }
        }
        self.count += usize::from(!hit);
        self.due[key as usize] = due;
        self.by_due.push((due, key));
        Ok(hit)
    }
}
