//! Clearing and dropping a keyspace: its incarnation ends, in the order of mutations.
//! Constant work; the bytes come back when their segments are reclaimed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::format::manifest::Op;
use crate::format::record::{RecordKind, encoded_len};
use crate::tiers::Tiers;
use crate::tiers::keyspaces::KeyspaceState;

impl Tiers {
    /// Ends an incarnation in the order of mutations; `next` is 0 when the keyspace is dropped.
    pub(crate) fn end_incarnation(&self, keyspace: &Arc<KeyspaceState>, drop: bool) -> Result<()> {
        self.check_open()?;
        self.check_writable("clear keyspace")?;
        self.flusher.check("clear keyspace")?;
        let next = if drop { 0 } else { self.manifest.next_incarnation() };
        let mut append = self.append.lock();
        let append = &mut *append;
        self.check_open()?;
        let ended = keyspace.incarnation()?;
        let len = encoded_len(0, 4);
        if !append.active.fits(len) {
            self.roll(append, len)?;
        }
        append.active.make_room(len)?;
        append.last_seq = append.last_seq.next();
        let seq = append.last_seq;
        self.append_mark(append, RecordKind::Clear, ended, &next.to_le_bytes(), seq);
        self.check_stored(append.active.stored())?;
        let keep = self.moments.any_before(seq);
        self.keyspaces.end(ended, next, seq, keep);
        if !keep {
            append.clear_accounts(ended);
        }
        self.changes.note_end(seq, ended, next);
        let op = if drop {
            let name = keyspace.name.clone();
            Op::DropKeyspace { name, incarnation: ended.0, seq: seq.0 }
        } else {
            Op::SetKeyspace(keyspace.facts(next, seq.0))
        };
        append.ended.push_back((seq, op));
        self.visible.store(seq.0, Ordering::Release);
        self.changes.wake();
        self.note_written(append, len);
        Ok(())
    }

    /// The same for a volatile keyspace, which takes no `seq`: the manifest alone knows.
    /// The caller holds `creating`.
    pub(crate) fn end_volatile(&self, keyspace: &Arc<KeyspaceState>, drop: bool) -> Result<()> {
        self.check_writable("clear keyspace")?;
        let ended = keyspace.incarnation()?;
        let seq = self.visible().0;
        let next = if drop { 0 } else { self.manifest.next_incarnation() };
        let name = keyspace.name.clone();
        self.commit_edit(&vec![if drop {
            Op::DropKeyspace { name, incarnation: ended.0, seq }
        } else {
            Op::SetKeyspace(keyspace.facts(next, seq))
        }])?;
        // No change of a volatile record falls between the two, or it would be kept for nobody.
        let _one = self.volatile_changes.lock();
        self.keyspaces.end(ended, next, self.visible(), false);
        self.hot.purge_incarnation(ended);
        Ok(())
    }

    /// Tells the manifest of ended incarnations now, after syncing all that came before them.
    pub(crate) fn publish_ended(&self) -> Result<()> {
        let ended: Vec<_> = self.append.lock().ended.iter().cloned().collect();
        let Some((last, _)) = ended.last() else { return Ok(()) };
        self.flush_through(*last)?;
        self.commit_edit(&ended.iter().map(|(_, op)| op.clone()).collect())?;
        self.append.lock().ended.retain(|(seq, _)| seq > last);
        Ok(())
    }
}
