//! S3-FIFO (Yang and others, SOSP 2023) with the parameters of its authors.
#![expect(clippy::indexing_slicing, reason = "keys of a trace are dense")]

use std::collections::VecDeque;
use std::io;

use crate::replay::Cache;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    Small,
    Main,
}

/// A small queue of a tenth, a main queue, a ghost of what left the small one.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghost: VecDeque<u32>,
    place: Vec<Place>,
    touches: Vec<u8>,
    ghosts: Vec<u32>,
    small_max: usize,
    capacity: usize,
}

impl S3Fifo {
    pub(crate) fn new(capacity: usize, distinct: usize) -> Self {
        Self {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            place: vec![Place::Out; distinct],
            touches: vec![0; distinct],
            ghosts: vec![0; distinct],
            small_max: (capacity / 10).max(1),
            capacity,
        }
    }

    fn evict_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        if self.touches[key as usize] > 1 {
            self.touches[key as usize] = 0;
            self.place[key as usize] = Place::Main;
            self.main.push_back(key);
            return;
        }
        self.place[key as usize] = Place::Out;
        self.ghosts[key as usize] += 1;
        self.ghost.push_back(key);
        if self.ghost.len() > self.capacity - self.small_max
            && let Some(key) = self.ghost.pop_front()
        {
            self.ghosts[key as usize] -= 1;
        }
    }

    fn evict_main(&mut self) {
        let Some(key) = self.main.pop_front() else { return };
        if self.touches[key as usize] > 0 {
            self.touches[key as usize] -= 1;
            self.main.push_back(key);
        } else {
            self.place[key as usize] = Place::Out;
        }
    }
}

impl Cache for S3Fifo {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        if self.place[key as usize] != Place::Out {
            let touches = &mut self.touches[key as usize];
            *touches = (*touches + 1).min(3);
            return Ok(true);
        }
        while self.small.len() + self.main.len() >= self.capacity {
            if self.main.len() > self.capacity - self.small_max || self.small.is_empty() {
                self.evict_main();
            } else if self.small.len() >= self.small_max || self.main.is_empty() {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        self.touches[key as usize] = 0;
        let again = self.ghosts[key as usize] > 0;
        self.place[key as usize] = if again { Place::Main } else { Place::Small };
        let queue = if again { &mut self.main } else { &mut self.small };
        queue.push_back(key);
        Ok(false)
    }
}
