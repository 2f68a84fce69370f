//! LRU and SIEVE (Zhang and others, NSDI 2024) over one linked list.
#![expect(clippy::indexing_slicing, reason = "keys of a trace are dense")]

use std::io;

use crate::replay::Cache;

const NONE: u32 = u32::MAX;

/// Keys from the newest to the oldest.
#[derive(Debug)]
struct List {
    newer: Vec<u32>,
    older: Vec<u32>,
    newest: u32,
    oldest: u32,
    len: usize,
}

impl List {
    fn new(distinct: usize) -> Self {
        let (newer, older) = (vec![NONE; distinct], vec![NONE; distinct]);
        Self { newer, older, newest: NONE, oldest: NONE, len: 0 }
    }

    fn link(&mut self, key: u32) {
        self.newer[key as usize] = NONE;
        self.older[key as usize] = self.newest;
        match self.newest {
            NONE => self.oldest = key,
            newest => self.newer[newest as usize] = key,
        }
        self.newest = key;
        self.len += 1;
    }

    fn unlink(&mut self, key: u32) {
        let (newer, older) = (self.newer[key as usize], self.older[key as usize]);
        match newer {
            NONE => self.newest = older,
            newer => self.older[newer as usize] = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.newer[older as usize] = newer,
        }
        self.len -= 1;
    }
}

/// Evicts whoever was touched longest ago.
#[derive(Debug)]
pub(crate) struct Lru {
    list: List,
    resident: Vec<bool>,
    capacity: usize,
}

impl Lru {
    pub(crate) fn new(capacity: usize, distinct: usize) -> Self {
        Self { list: List::new(distinct), resident: vec![false; distinct], capacity }
    }
}

impl Cache for Lru {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        let hit = self.resident[key as usize];
        if hit {
            self.list.unlink(key);
        } else if self.list.len == self.capacity {
            let oldest = self.list.oldest;
            self.list.unlink(oldest);
            self.resident[oldest as usize] = false;
        }
        self.resident[key as usize] = true;
        self.list.link(key);
        Ok(hit)
    }
}

/// A hand goes from old to new and evicts the first that was not touched since it came by.
#[derive(Debug)]
pub(crate) struct Sieve {
    list: List,
    resident: Vec<bool>,
    touched: Vec<bool>,
    hand: u32,
    capacity: usize,
}

impl Sieve {
    pub(crate) fn new(capacity: usize, distinct: usize) -> Self {
        let (resident, touched) = (vec![false; distinct], vec![false; distinct]);
        Self { list: List::new(distinct), resident, touched, hand: NONE, capacity }
    }

    fn evict(&mut self) {
        let or_oldest = |key: u32, oldest: u32| if key == NONE { oldest } else { key };
        let mut hand = or_oldest(self.hand, self.list.oldest);
        while self.touched[hand as usize] {
            self.touched[hand as usize] = false;
            hand = or_oldest(self.list.newer[hand as usize], self.list.oldest);
        }
        self.hand = self.list.newer[hand as usize];
        self.list.unlink(hand);
        self.resident[hand as usize] = false;
    }
}

impl Cache for Sieve {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        if self.resident[key as usize] {
            self.touched[key as usize] = true;
            return Ok(true);
        }
        if self.list.len == self.capacity {
            self.evict();
        }
        self.resident[key as usize] = true;
        self.touched[key as usize] = false;
        self.list.link(key);
        Ok(false)
    }
}
