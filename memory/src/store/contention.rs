//! Trying again after a conflict: bounded, with growing pauses, one thread of a process at a time.
//! Knows attempts and waits; knows nothing of what is tried.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::store::Ns;

/// How often a change is tried.
pub(crate) const ATTEMPTS_MAX: u32 = 16;
/// Attempts without a turn; most changes need no more.
const ATTEMPTS_FREE: u32 = 2;
/// Attempts without stepping aside.
const ATTEMPTS_QUICK: u32 = 5;
/// The longest wait for a turn. It only keeps threads from losing to each other for ever; what is
/// correct, the guards of the commit say. Long enough for some commits at a server.
const TURN_WAIT: Duration = Duration::from_millis(500);

/// Turns, by namespace. Threads that conflict queue up instead of racing.
static TURNS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];

thread_local! {
    /// Whether this thread has a turn: within it, it does not wait for another.
    static HAS_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `attempt` until it does not end with [`Error::Conflict`], at most 16 times.
///
/// For changes that read, decide, and commit under guards. `attempt` must read anew each time.
pub fn retry<T>(ns: &Ns, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    // Somebody waits for a turn: then nobody runs past. Who has one already, does not wait again.
    let mut turn = if turn_of(ns).is_locked() { Turn::take(ns) } else { None };
    for count in 1.. {
        match attempt() {
            Err(Error::Conflict { .. }) if count < ATTEMPTS_MAX => {}
            done => return done,
        }
        if count == ATTEMPTS_FREE && turn.is_none() {
            turn = Turn::take(ns);
        } else if count > ATTEMPTS_QUICK {
            // Somebody of another process, or of one that did not queue: step aside for longer.
            let grown = 1_u64 << count.min(10);
            thread::park_timeout(Duration::from_micros(grown * (1 + jitter() % 8)));
        }
    }
    drop(turn);
    Err(Error::Timeout)
}

/// A turn of a namespace, given back when dropped.
struct Turn {
    _held: MutexGuard<'static, ()>,
}

impl Turn {
    fn take(ns: &Ns) -> Option<Self> {
        if HAS_TURN.get() {
            return None;
        }
        let held = turn_of(ns).try_lock_for(TURN_WAIT)?;
        HAS_TURN.set(true);
        Some(Self { _held: held })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HAS_TURN.set(false);
    }
}

fn turn_of(ns: &Ns) -> &'static Mutex<()> {
    let mut hasher = DefaultHasher::new();
    ns.hash(&mut hasher);
    let index = usize::try_from(hasher.finish() % 64).unwrap_or(0);
    TURNS.get(index).unwrap_or(&TURNS[0])
}

/// Differs between threads.
fn jitter() -> u64 {
    let mut hasher = DefaultHasher::new();
    thread::current().id().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_conflict_is_tried_sixteen_times_and_then_returned() {
        let ns = Ns::new("a").unwrap();
        let mut attempts = 0;
        let result: Result<()> = retry(&ns, || {
            attempts += 1;
            Err(Error::Conflict { key: Bytes::new(), found: None })
        });
        assert!(matches!(result, Err(Error::Conflict { .. })));
        assert_eq!(attempts, ATTEMPTS_MAX);
        assert!(matches!(retry(&ns, || Err::<(), _>(Error::Closed)), Err(Error::Closed)));
        let mut left = 3;
        let result = retry(&ns, || {
            left -= 1;
            if left > 0 {
                return Err(Error::Conflict { key: Bytes::new(), found: None });
            }
            Ok(7)
        });
        assert_eq!(result.unwrap(), 7);
    }
}
