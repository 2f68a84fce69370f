//! What stands in for a segment under the shared flush: a device that remembers what was synced.

pub(crate) mod segment {
    use std::io;

    use crate::shim::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Segment {
        pub id: u32,
        pub file: Device,
        pub map: (),
    }

    #[derive(Debug, Default)]
    pub(crate) struct Device {
        synced: AtomicU64,
        calls: AtomicU64,
    }

    impl Device {
        #[expect(
            clippy::trivially_copy_pass_by_ref,
            clippy::unnecessary_wraps,
            reason = "takes and gives what a file does"
        )]
        pub(crate) fn sync_range(&self, (): &(), _from: u64, to: u64) -> io::Result<()> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.synced.fetch_max(to, Ordering::SeqCst);
            Ok(())
        }

        /// Everything up to here was synced.
        pub(crate) fn synced(&self) -> u64 {
            self.synced.load(Ordering::SeqCst)
        }

        pub(crate) fn calls(&self) -> u64 {
            self.calls.load(Ordering::SeqCst)
        }
    }
}
