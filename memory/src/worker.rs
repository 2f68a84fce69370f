//! A thread that a caller asked for: told to end and waited for when its handle goes.
//! Knows nothing of what it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// A thread that somebody asked for. It ends, and is waited for, when this is dropped.
#[derive(Debug)]
#[must_use = "dropped, the worker ends"]
pub struct Worker {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Worker {
    /// Runs until the flag is set, or an error.
    pub(crate) fn spawn(run: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        #[expect(clippy::disallowed_methods, reason = "the one thread that a caller asks for")]
        let thread = Some(std::thread::spawn(move || run(&end)));
        Self { ending, thread }
    }

    /// Ends the worker; answers what it failed with, if it did.
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.ending.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What it failed with is asked for with `stop`.
        drop(self.join());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_ends_when_it_is_told_and_says_what_it_failed_with() {
        let waits = Worker::spawn(|end| {
            while !end.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            Ok(())
        });
        assert!(waits.stop().is_ok());
        assert!(matches!(Worker::spawn(|_| Err(Error::Timeout)).stop(), Err(Error::Timeout)));
        let panics = Worker::spawn(|_| panic!("on purpose"));
        assert!(matches!(panics.stop(), Err(Error::Closed)));
    }
}
