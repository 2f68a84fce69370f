//! Sealing: a full journal segment gets its trailer, is synced, and is listed as sealed.
//! Knows the order of sealing; knows nothing of what becomes of the segment later.

use crate::error::Result;
use crate::format::manifest::Op;
use crate::format::segment::SegmentFooter;
use crate::ids::Seq;
use crate::manifest::{SealedFacts, seal_op};
use crate::tiering::Step;
use crate::tiers::{Maintenance, Tiers};
use crate::warm::active::SegmentWriter;

impl Tiers {
    /// Seals the oldest full segment together with the segments attached to it.
    pub(crate) fn seal_step(&self, _maintenance: &mut Maintenance) -> Result<Step> {
        let Some((mut journal, last)) = self.append.lock().closed.pop_front() else {
            return Ok(Step::Idle);
        };
        let _span = tracing::debug_span!("seal", segment = %journal.segment.id).entered();
        let mut attached = self.take_attached(last);
        let sealed = self.write_trailers(&mut journal, &mut attached).and_then(|facts| {
            self.commit_sealed(&journal, &attached, &facts, last)?;
            Ok(facts)
        });
        let facts = match sealed {
            Ok(facts) => facts,
            Err(error) => {
                let mut append = self.append.lock();
                append.closed.push_front((journal, last));
                for one in attached.into_iter().rev() {
                    append.attached.push_front(one);
                }
                return Err(error);
            }
        };
        let writers = std::iter::once(&journal).chain(attached.iter().map(|(writer, _)| writer));
        for (writer, (facts, footer)) in writers.zip(facts) {
            writer.segment.set_sealed(facts, footer);
        }
        Ok(Step::Worked)
    }

    fn take_attached(&self, last: Seq) -> Vec<(SegmentWriter, Seq)> {
        let mut append = self.append.lock();
        let mut taken = Vec::new();
        while let Some(one) = append.attached.pop_front_if(|(_, seq)| *seq <= last) {
            taken.push(one);
        }
        taken
    }

    fn write_trailers(
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

    fn commit_sealed(
        &self,
        journal: &SegmentWriter,
        attached: &[(SegmentWriter, Seq)],
        facts: &[(SealedFacts, SegmentFooter)],
        last: Seq,
    ) -> Result<()> {
        let ids = std::iter::once(journal).chain(attached.iter().map(|(writer, _)| writer));
        let mut ops: Vec<Op> = ids
            .zip(facts)
            .map(|(writer, (facts, _))| seal_op(writer.segment.id.0, facts))
            .collect();
        ops.push(Op::JournalAt { seq: last.next().0 });
        let ended: Vec<_> = {
            let append = self.append.lock();
            append.ended.iter().filter(|(seq, _)| *seq <= last).map(|(_, op)| op.clone()).collect()
        };
        ops.extend(ended);
        self.manifest.commit(&ops)?;
        self.append.lock().ended.retain(|(seq, _)| *seq > last);
        Ok(())
    }

    /// Makes the next journal segment ready, so that rolling over costs a put nothing.
    pub(crate) fn spare_step(&self) -> Result<Step> {
        let Some(_preparing) = self.preparing.try_lock() else { return Ok(Step::Idle) };
        let (slot, live) = {
            let mut append = self.append.lock();
            if append.spare.is_some() || append.active.is_empty() {
                return Ok(Step::Idle);
            }
            (self.take_slot(&mut append)?, append.live_bytes())
        };
        let made = self.create_journal(slot, live, 0);
        let mut append = self.append.lock();
        match made {
            Ok(spare) => {
                append.spare = Some(spare);
                Ok(Step::Worked)
            }
            Err(error) => {
                append.table.release(slot);
                Err(error)
            }
        }
    }
}
