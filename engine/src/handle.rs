//! What all handles of one store share: the tiers, their workers, and closing.
//! Knows nothing of keyspaces or of what is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::tiers::Tiers;

/// What all handles of one store share.
#[derive(Debug)]
pub(crate) struct StoreHandle {
    pub(crate) tiers: Arc<Tiers>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// A temporary store's directory, removed when the last handle goes.
    temporary: Option<PathBuf>,
}

impl StoreHandle {
    pub(crate) fn new(
        tiers: Arc<Tiers>,
        threads: Vec<JoinHandle<()>>,
        temporary: Option<PathBuf>,
    ) -> Self {
        Self { tiers, threads: Mutex::new(threads), temporary }
    }

    pub(crate) fn close(&self) -> Result<()> {
        let result = self.tiers.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        result
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        if let Err(error) = self.close()
            && !matches!(error, Error::Closed)
        {
            tracing::error!(%error, "closing failed; a crash is as good as a close");
        }
        if let Some(path) = &self.temporary
            && let Err(error) = crate::vfs::os::remove_temporary(path)
        {
            tracing::warn!(%error, "a temporary store stays");
        }
    }
}
