//! Atomics and locks as the kernels take them: those parts whose correctness is the order in which
//! threads step. `tests/src/kernels` compiles their sources once more over `loom`'s types, under
//! this module's names, and walks through every order of steps.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

pub(crate) use std::hint::spin_loop;

pub(crate) use parking_lot::{Condvar, Mutex};
