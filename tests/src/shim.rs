//! `loom`'s atomics and locks under the names that the engine's own `shim` gives to those of std
//! and `parking_lot`.
#![expect(clippy::expect_used, reason = "a guard that is away is the model's own fault")]

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

pub(crate) use loom::hint::spin_loop;

thread_local! {
    static DEAF: Cell<bool> = const { Cell::new(false) };
}

/// Plants a violation: nobody is woken any more. A model's threads all run on the thread that
/// explores it.
pub(crate) fn deaf(deaf: bool) {
    DEAF.set(deaf);
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

/// Its inner guard is away while a condition is waited for.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

const HELD: &str = "the guard is away only inside `wait`";

impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().ok())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect(HELD)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Default for Condvar {
    fn default() -> Self {
        Self(loom::sync::Condvar::new())
    }
}

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect(HELD);
        guard.0 = self.0.wait(held).ok();
    }

    pub(crate) fn notify_all(&self) {
        if !DEAF.get() {
            self.0.notify_all();
        }
    }
}
