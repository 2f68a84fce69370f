//! The shared flush: who returns from it finds everything that was written before on the device,
//! nobody waits for ever, and a flush serves all who waited for it.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;

use crate::flush::{DirtyRange, Flusher};
use crate::ids::Seq;
use crate::kernels::explore;
use crate::shim::deaf;
use crate::warm::segment::Segment;

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Nothing.
    Nothing,
    /// The leader claims what was written after it took what is dirty.
    Claims,
    /// Nobody hears when a leader is done.
    Deaf,
}

const WRITERS: u64 = 3;

/// Writers that each write and flush.
pub fn a_flush_serves_all_who_wait(planted: Planted) {
    deaf(planted == Planted::Deaf);
    explore(2, move || {
        let flusher = Arc::new(Flusher::new(Seq(0)));
        let written = Arc::new(AtomicU64::new(0));
        let segment = std::sync::Arc::new(Segment::default());
        let write = move || {
            let seq = written.fetch_add(1, SeqCst) + 1;
            let take = || {
                let is_first = segment.file.calls() == 0;
                assert!(!is_first || !flusher.expects_more(), "nobody was here before");
                let to = written.load(SeqCst);
                let reached = if planted == Planted::Claims { written.load(SeqCst) } else { to };
                let segment = std::sync::Arc::clone(&segment);
                (vec![DirtyRange { segment, from: 0, to }], Seq(reached))
            };
            assert!(flusher.flush_through(Seq(seq), take).is_ok());
            assert!(flusher.durable() >= Seq(seq));
            assert!(segment.file.synced() >= seq, "{seq} returned and is not on the device");
            assert!(segment.file.calls() <= WRITERS, "a flush for nobody");
        };
        let write = std::sync::Arc::new(write);
        let others: Vec<_> = (1..WRITERS)
            .map(|_| {
                let write = std::sync::Arc::clone(&write);
                thread::spawn(move || write())
            })
            .collect();
        write();
        for other in others {
            assert!(other.join().is_ok());
        }
    });
}
