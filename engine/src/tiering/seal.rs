//! Sealing: a full journal segment gets its trailer, is synced, and is listed as sealed.
//! Knows the order of sealing; knows nothing of what becomes of the segment later.

use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::format::segment::SegmentFooter;
use crate::ids::Seq;
use crate::manifest::{SealedFacts, seal_op};
use crate::tiering::Step;
use crate::tiers::append::Append;
use crate::tiers::{Maintenance, Tiers};
use crate::warm::active::SegmentWriter;

/// Bytes of journal that are worth sealing early.
pub(crate) const EARLY_SEAL_LEN: u64 = 64 << 10;

impl Tiers {
    /// Seals the oldest full segment together with the segments attached to it.
    pub(crate) fn seal_step(&self, _maintenance: &mut Maintenance) -> Result<Step> {
        let oldest = {
            let _allocating = self.allocating.lock();
            self.append.lock().closed.pop_front()
        };
        let Some((mut journal, last)) = oldest else { return Ok(Step::Idle) };
        let _span = tracing::debug_span!("seal", segment = %journal.segment.id).entered();
        let (mut attached, ended) = {
            let mut append = self.append.lock();
            (take_attached(&mut append, last), ended_until(&append, last))
        };
        let sealed = self.write_trailers(&mut journal, &mut attached).and_then(|facts| {
            let mut ops = seal_ops(&journal, &attached, &facts, last);
            ops.extend(ended);
            self.commit_edit(&ops)?;
            Ok(facts)
        });
        let facts = match sealed {
            Ok(facts) => facts,
            Err(error) => {
                self.poison_unless_full(&error);
                let mut append = self.append.lock();
                append.closed.push_front((journal, last));
                for one in attached.into_iter().rev() {
                    append.attached.push_front(one);
                }
                return Err(error);
            }
        };
        self.append.lock().ended.retain(|(seq, _)| *seq > last);
        set_sealed(&journal, &attached, facts);
        Ok(Step::Worked)
    }

    /// A journal that could not be written or synced to its end holds what nobody knows. Sealing is
    /// tried again only where the disk was full before anything was written, and where damage was
    /// found.
    fn poison_unless_full(&self, error: &Error) {
        match error {
            Error::Io { doing: "allocate segment", .. } | Error::Corrupt(_) => {}
            Error::Io { doing: "write manifest edit", .. } if !self.manifest.has_failed() => {}
            other => self.flusher.poison(other),
        }
    }

    /// Writes and syncs the trailers of a journal segment and of those attached to it.
    pub(super) fn write_trailers(
        &self,
        journal: &mut SegmentWriter,
        attached: &mut [(SegmentWriter, Seq)],
    ) -> Result<Vec<(SealedFacts, SegmentFooter)>> {
        let mut facts = vec![journal.write_trailer(&self.seed)?];
        for (writer, _) in attached {
            facts.push(writer.write_trailer(&self.seed)?);
        }
        Ok(facts)
    }
}

/// The attached segments that the journal names up to `last`.
pub(super) fn take_attached(append: &mut Append, last: Seq) -> Vec<(SegmentWriter, Seq)> {
    let mut taken = Vec::new();
    while let Some(one) = append.attached.pop_front_if(|(_, seq)| *seq <= last) {
        taken.push(one);
    }
    taken
}

/// The ends of incarnations up to `last` that the manifest does not know.
pub(super) fn ended_until(append: &Append, last: Seq) -> Vec<Op> {
    append.ended.iter().filter(|(seq, _)| *seq <= last).map(|(_, op)| op.clone()).collect()
}

/// What the manifest says once these trailers are written.
pub(super) fn seal_ops(
    journal: &SegmentWriter,
    attached: &[(SegmentWriter, Seq)],
    facts: &[(SealedFacts, SegmentFooter)],
    last: Seq,
) -> Vec<Op> {
    let writers = std::iter::once(journal).chain(attached.iter().map(|(writer, _)| writer));
    let sealed = writers.zip(facts);
    let mut ops: Vec<Op> =
        sealed.map(|(writer, (facts, _))| seal_op(writer.segment.id.0, facts)).collect();
    ops.push(Op::JournalAt { seq: last.next().0 });
    ops
}

/// The manifest says it: from now on these segments never change.
pub(super) fn set_sealed(
    journal: &SegmentWriter,
    attached: &[(SegmentWriter, Seq)],
    facts: Vec<(SealedFacts, SegmentFooter)>,
) {
    let writers = std::iter::once(journal).chain(attached.iter().map(|(writer, _)| writer));
    for (writer, (facts, footer)) in writers.zip(facts) {
        writer.segment.set_sealed(facts, footer);
    }
}
