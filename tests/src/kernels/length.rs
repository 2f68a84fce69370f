//! Publishing a length: whoever reads it sees every byte below it.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU8;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

use crate::kernels::explore;
use crate::published::Published;

/// Bytes of a record.
const LEN: usize = 2;
const RECORDS: usize = 2;
const STORED: u8 = 7;

/// A writer appends records and publishes each; a reader looks at all that is published. `early`
/// plants the violation: the length is published before the bytes are stored.
pub fn readers_see_what_is_below_a_published_length(early: bool) {
    explore(3, move || {
        let published = Arc::new(Published::new(0));
        let bytes: Arc<[AtomicU8; LEN * RECORDS]> =
            Arc::new(std::array::from_fn(|_| AtomicU8::new(0)));
        let (to, of) = (Arc::clone(&published), Arc::clone(&bytes));
        let writer = thread::spawn(move || {
            for record in of.chunks(LEN).zip(1_u64..) {
                let end = record.1 * LEN as u64;
                if early {
                    to.raise(end);
                }
                record.0.iter().for_each(|byte| byte.store(STORED, Relaxed));
                if !early {
                    to.raise(end);
                }
            }
        });
        let end = usize::try_from(published.get()).unwrap_or(0);
        for byte in bytes.iter().take(end) {
            assert_eq!(byte.load(Relaxed), STORED, "a byte below {end} was not there");
        }
        assert!(writer.join().is_ok());
    });
}
