//! Closing in order: everything synced, the journal sealed, an index image left. A crash at any
//! point of it is a crash like any other. Knows the order; each step is somebody else's.

use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::ids::Seq;
use crate::tiering::Step;
use crate::tiering::seal::{ended_until, seal_ops, set_sealed, take_attached};
use crate::tiers::append::Append;
use crate::tiers::recover::STATISTICS_NAME;
use crate::tiers::{Maintenance, Tiers};
use crate::vfs::os;

use std::sync::atomic::Ordering;

impl Tiers {
    /// Syncs, leaves what makes the next opening quick, and releases the lock. Handles answer
    /// `Closed` from now on.
    pub(crate) fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        self.nudge();
        self.changes.wake_all();
        self.relieved.notify_all();
        let mut maintenance = self.maintenance.lock();
        if os::process_id() != self.pid {
            return Ok(());
        }
        let result = self.sync().and_then(|()| self.note_end());
        if result.is_ok()
            && !(self.options.read_only || self.options.temporary)
            && let Err(error) = self.leave_image(&mut maintenance)
        {
            // Nothing is lost: the next opening reads the journal, as after a crash.
            tracing::warn!(%error, "closed without an index image");
        }
        self.remove_statistics();
        *self.lock.lock() = None;
        result
    }

    /// Nobody shall take the figures of a closed store for those of a running one.
    fn remove_statistics(&self) {
        if self.options.statistics_every.is_some()
            && let Err(error) = self.dir.unlink(STATISTICS_NAME)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the statistics file stays");
        }
    }

    /// Tells the manifest that nothing of the journal is a torn tail, and how late it is.
    fn note_end(&self) -> Result<()> {
        let (seq, ms) = (self.flusher.durable(), self.clock.high_water_to_persist());
        let (durable_at, clock_ms) = self.manifest.read(|set| (set.durable_at, set.clock_ms));
        let mut ops = Vec::new();
        if seq > durable_at {
            ops.push(Op::DurableAt { seq: seq.0 });
        }
        if ms > clock_ms {
            ops.push(Op::ClockAt { ms });
        }
        if ops.is_empty() { Ok(()) } else { self.commit_edit(&ops) }
    }

    fn leave_image(&self, maintenance: &mut Maintenance) -> Result<()> {
        while self.seal_step(maintenance)? == Step::Worked {}
        self.restore_order();
        self.measure_space();
        let ordered = self.is_ordered();
        let _allocating = self.allocating.lock();
        let mut append = self.append.lock();
        let append = &mut *append;
        let id = self.manifest.next_file();
        let mut ops = vec![Op::DraftImage { id }];
        ops.extend(maintenance.gone.drain(..).map(|id| Op::Gone { id }));
        let unused = self.seal_last(append, ops)?;
        let unused: Vec<_> = unused.into_iter().filter(|&id| self.unlink_segment(id)).collect();
        let mut ops: Vec<Op> = unused.into_iter().map(|id| Op::Gone { id }).collect();
        let room = self.has_room_for_image();
        let written = if room { self.write_image(append, id, ordered).map(Some) } else { Ok(None) };
        match &written {
            Ok(Some((len, crc))) => ops.push(Op::ListImage { id, len: *len, crc: *crc }),
            _ => self.discard_file(id),
        }
        self.commit_edit(&ops)?;
        written.map(drop)
    }

    /// Whether an image keeps the store within its disk budget.
    fn has_room_for_image(&self) -> bool {
        let len = self.index.charged_len() + self.order.charged_len();
        let used = self.disk_len.load(Ordering::Relaxed);
        self.options.disk_budget.is_none_or(|budget| used.saturating_add(len) <= budget)
    }

    /// Seals the active segment and lets go of those without records; returns their numbers.
    fn seal_last(&self, append: &mut Append, mut ops: Vec<Op>) -> Result<Vec<u32>> {
        let last: Seq = append.last_seq;
        let mut unused = Vec::new();
        let mut attached = take_attached(append, last);
        ops.extend(ended_until(append, last));
        let facts = if append.active.is_empty() {
            unused.push(append.active.segment.id.0);
            Vec::new()
        } else {
            let facts = self.write_trailers(&mut append.active, &mut attached)?;
            ops.extend(seal_ops(&append.active, &attached, &facts, last));
            facts
        };
        unused.extend(append.spares.iter().map(|spare| spare.segment.id.0));
        ops.extend(unused.iter().map(|&id| Op::Doom { id }));
        self.commit_edit(&ops)?;
        if !facts.is_empty() {
            set_sealed(&append.active, &attached, facts);
        }
        Ok(unused)
    }

    /// Whether the file of a segment without records is gone.
    fn unlink_segment(&self, id: u32) -> bool {
        let unlinked = self.dir.unlink(&crate::ids::SegmentId(id).to_string());
        unlinked.is_ok()
    }
}
