//! The new store: each sound record under its keyspace, with its deadline, or beside it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::manifest::{KeyspaceFacts, Op};
use crate::handle::StoreHandle;
use crate::ids::Incarnation;
use crate::limits::KEYSPACE_NAME_LEN_MAX;
use crate::options::{Durability, Options};
use crate::repair::catalog::{Catalog, Verdict};
use crate::repair::source::Source;
use crate::repair::{Salvaged, SalvagedKey, Sound, UNKNOWN_SUFFIX};
use crate::tiering::workers;
use crate::tiers::Tiers;
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::write::{Guard, Mutation, Outcome};
use crate::verify::{VerifyOptions, verify};

/// The store that is being filled.
pub(super) struct Writer<'c> {
    store: StoreHandle,
    keyspaces: HashMap<Incarnation, Arc<KeyspaceState>>,
    beside: HashMap<Incarnation, Arc<KeyspaceState>>,
    catalog: &'c mut Catalog,
}

impl<'c> Writer<'c> {
    pub(super) fn open(
        into: &Path,
        options: Options,
        source: &Source,
        catalog: &'c mut Catalog,
    ) -> Result<Self> {
        let vfs = options.files();
        let io = |doing| move |error| Error::io(doing, into, error);
        let dir = vfs.create_dir(into).map_err(io("create store"))?;
        if let Some(other) = dir.list().map_err(io("list directory"))?.first() {
            let reason =
                format!("salvage writes to an empty directory, not beside {:?}", other.name);
            return Err(Error::Foreign { path: into.to_path_buf(), reason });
        }
        let workers = options.workers;
        let tiers = Tiers::open(into, options)?;
        let threads = if workers { workers::start(&tiers)? } else { Vec::new() };
        let store = StoreHandle::new(tiers, threads, None);
        let mut this = Self { store, keyspaces: HashMap::new(), beside: HashMap::new(), catalog };
        for (&incarnation, facts) in &source.keyspaces {
            let state = this.create(facts.clone())?;
            this.keyspaces.insert(Incarnation(incarnation), state);
        }
        Ok(this)
    }

    fn create(&self, mut facts: KeyspaceFacts) -> Result<Arc<KeyspaceState>> {
        let tiers = &self.store.tiers;
        (facts.incarnation, facts.seq) = (tiers.manifest.next_incarnation(), 0);
        tiers.manifest.commit(&vec![Op::SetKeyspace(facts.clone())])?;
        let state = KeyspaceState::of(&facts);
        tiers.keyspaces.insert(Arc::clone(&state));
        Ok(state)
    }

    /// The keyspace beside this one, for versions that are not the newest.
    fn beside(
        &mut self,
        incarnation: Incarnation,
        of: &KeyspaceState,
    ) -> Result<Arc<KeyspaceState>> {
        if let Some(state) = self.beside.get(&incarnation) {
            return Ok(Arc::clone(state));
        }
        let mut name = of.name.clone();
        while name.len() + UNKNOWN_SUFFIX.len() > KEYSPACE_NAME_LEN_MAX {
            name.pop();
        }
        name.push_str(UNKNOWN_SUFFIX);
        while self.store.tiers.keyspaces.by_name(&name).is_some() {
            name.insert(0, '_');
        }
        let facts = KeyspaceFacts { name, ..of.facts(0, 0) };
        let state = self.create(facts)?;
        self.beside.insert(incarnation, Arc::clone(&state));
        Ok(state)
    }

    /// Writes a record where it belongs, unless it was superseded, has ended or has expired.
    pub(super) fn write(&mut self, sound: &Sound<'_>, salvaged: &mut Salvaged) -> Result<()> {
        let Sound { incarnation, key, value, deadline_ms, .. } = *sound;
        let Some(state) = self.keyspaces.get(&incarnation).cloned() else { return Ok(()) };
        let verdict = self.catalog.judge(sound);
        if verdict == Verdict::Passed {
            return Ok(());
        }
        let expired = !self.store.tiers.is_alive(deadline_ms);
        let named = |lost_seq: u64| SalvagedKey {
            keyspace: state.name.clone(),
            key: Some(key.to_vec()),
            lost_seq,
        };
        match verdict {
            Verdict::Passed => {}
            Verdict::Behind(seq, tombstone) => {
                self.catalog.forget(incarnation, key);
                if tombstone {
                    salvaged.name_unknown(named(seq.0));
                } else {
                    salvaged.name_lost(named(seq.0));
                }
                if let Some(value) = value
                    && !expired
                {
                    let beside = self.beside(incarnation, &state)?;
                    self.put(&beside, key, value, deadline_ms)?;
                }
            }
            Verdict::Newest | Verdict::Unknown(_) => {
                let Some(value) = value.filter(|_| !expired) else { return Ok(()) };
                self.put(&state, key, value, deadline_ms)?;
                match verdict {
                    Verdict::Unknown(seq) => salvaged.name_unknown(named(seq.0)),
                    _ => salvaged.kept += 1,
                }
            }
        }
        Ok(())
    }

    fn put(
        &self,
        state: &Arc<KeyspaceState>,
        key: &[u8],
        value: &[u8],
        deadline_ms: u64,
    ) -> Result<()> {
        let tiers = &self.store.tiers;
        loop {
            let mutation = Mutation::new(tiers, state, key, Some(value), deadline_ms)?;
            let written = tiers.write(&[mutation], Guard::Free, Durability::Buffered)?;
            if let Outcome::Done(_) = written {
                return Ok(());
            }
        }
    }

    /// Names what is left, makes all durable, and checks what was written.
    pub(super) fn finish(self, salvaged: &mut Salvaged) -> Result<()> {
        for lost in self.catalog.nameless() {
            let Some(state) = self.keyspaces.get(&lost.incarnation) else { continue };
            if self.store.tiers.is_alive(lost.deadline_ms) {
                let keyspace = state.name.clone();
                salvaged.name_lost(SalvagedKey { keyspace, key: None, lost_seq: lost.seq.0 });
            }
        }
        salvaged.has_gap = self.catalog.has_gap();
        let tiers = &self.store.tiers;
        tiers.sync()?;
        let verified = verify(tiers, VerifyOptions::new(), |_| ());
        if let Some(damage) = verified.damage.into_iter().next() {
            return Err(damage.into());
        }
        self.store.close()
    }
}
