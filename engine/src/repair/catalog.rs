//! For each key the newest sound record, and what is known to be missing.
//! Knows numbers; the keys themselves stay in their files.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::error::{Error, Result};
use crate::format::manifest::KeyspaceFacts;
use crate::hash::HashSeed;
use crate::ids::{Incarnation, Seq};
use crate::repair::{Find, Lost, NAMED_MAX, Salvaged, Sound};
use crate::vfs::os;

/// The newest sound record of one key.
#[derive(Debug, Clone, Copy)]
struct Newest {
    seq: Seq,
    incarnation: Incarnation,
    tag: u32,
    written: bool,
}

/// What is to become of a sound record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A newer one is there, or it was written before.
    Passed,
    Newest,
    /// A newer record of the key is lost: its number, and whether it was a tombstone.
    Behind(Seq, bool),
    /// A newer record may be lost, up to this number.
    Unknown(Seq),
}

/// Everything that the first walk learnt.
pub(super) struct Catalog {
    seed: Option<HashSeed>,
    /// Draws the numbers that stand for keys.
    secret: [u8; 16],
    newest: HashMap<u128, Newest>,
    lost: HashMap<(Incarnation, u32), Lost>,
    clears: Vec<(Seq, Incarnation, u32)>,
    /// The highest number of any gap.
    gap_last: Option<Seq>,
    /// Archived records are missing, nobody knows how many.
    cold_gap: bool,
}

impl Catalog {
    pub(super) fn new(seed: Option<HashSeed>) -> Result<Self> {
        let secret = os::random_bytes().map_err(|e| Error::io("draw secret", "salvage", e))?;
        Ok(Self {
            seed,
            secret,
            newest: HashMap::new(),
            lost: HashMap::new(),
            clears: Vec::new(),
            gap_last: None,
            cold_gap: false,
        })
    }

    fn name_of(&self, incarnation: Incarnation, key: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write_u32(incarnation.0);
        hasher.write(key);
        hasher.finish128().as_u128()
    }

    pub(super) fn note(&mut self, find: Find<'_>, salvaged: &mut Salvaged) {
        match find {
            Find::Sound(sound) => self.note_sound(&sound),
            Find::Lost(lost) => match (lost.tag, self.seed.is_some()) {
                (Some(tag), true) => {
                    let known = self.lost.entry((lost.incarnation, tag)).or_insert(lost);
                    if known.seq < lost.seq {
                        *known = lost;
                    }
                }
                _ => self.note_gap(lost.seq),
            },
            Find::Gap(_, last) => self.note_gap(last),
            Find::LostCold(count) => salvaged.lost += count,
            Find::ColdGap => self.cold_gap = true,
            Find::Clear(seq, ended, next) => self.clears.push((seq, ended, next)),
            Find::Damage(damage) => {
                if salvaged.damage.len() < NAMED_MAX {
                    salvaged.damage.push(damage);
                }
            }
        }
    }

    fn note_gap(&mut self, last: Seq) {
        self.gap_last = self.gap_last.max(Some(last));
    }

    fn note_sound(&mut self, sound: &Sound<'_>) {
        let Sound { incarnation, key, seq, .. } = *sound;
        let tag = self.seed.as_ref().map_or(0, |seed| seed.hash(incarnation, key).tag());
        let name = self.name_of(incarnation, key);
        let entry = Newest { seq, incarnation, tag, written: false };
        let known = self.newest.entry(name).or_insert(entry);
        if known.seq < seq {
            *known = entry;
        }
    }

    /// All was seen: lost records that a newer one replaced are forgotten, and the keyspaces are
    /// those after the last clear.
    pub(super) fn finish(&mut self, keyspaces: &mut BTreeMap<u32, KeyspaceFacts>) {
        for newest in self.newest.values() {
            let place = (newest.incarnation, newest.tag);
            if self.lost.get(&place).is_some_and(|lost| lost.seq <= newest.seq) {
                self.lost.remove(&place);
            }
        }
        self.clears.sort_unstable();
        let invented = self.seed.is_none();
        if invented {
            for newest in self.newest.values() {
                let number = newest.incarnation.0;
                keyspaces.entry(number).or_insert_with(|| nameless(number));
            }
        }
        for &(seq, ended, next) in &self.clears {
            let Some(mut facts) = keyspaces.remove(&ended.0) else { continue };
            if next != 0 && !(invented && keyspaces.contains_key(&next)) {
                (facts.incarnation, facts.seq) = (next, seq.0);
                keyspaces.insert(next, facts);
            }
        }
    }

    /// Judges a record of the second walk; each key is answered once with more than `Passed`.
    pub(super) fn judge(&mut self, sound: &Sound<'_>) -> Verdict {
        let name = self.name_of(sound.incarnation, sound.key);
        let Some(newest) = self.newest.get_mut(&name) else { return Verdict::Passed };
        if newest.seq != sound.seq || newest.written {
            return Verdict::Passed;
        }
        newest.written = true;
        if let Some(lost) = self.lost.get(&(newest.incarnation, newest.tag)) {
            return Verdict::Behind(lost.seq, lost.tombstone);
        }
        match self.gap_last {
            Some(last) if last > sound.seq => Verdict::Unknown(last),
            _ => Verdict::Newest,
        }
    }

    /// The name for a lost record is known now.
    pub(super) fn forget(&mut self, incarnation: Incarnation, key: &[u8]) {
        if let Some(seed) = &self.seed {
            let tag = seed.hash(incarnation, key).tag();
            if let Some(lost) = self.lost.get_mut(&(incarnation, tag)) {
                lost.tag = None;
            }
        }
    }

    /// Lost records whose key nothing told.
    pub(super) fn nameless(&self) -> impl Iterator<Item = &Lost> {
        self.lost.values().filter(|lost| lost.tag.is_some() && !lost.tombstone)
    }

    /// Records may be missing of which nothing is known.
    pub(super) fn has_gap(&self) -> bool {
        self.gap_last.is_some() || self.cold_gap
    }
}

/// A keyspace whose name is lost with the manifest.
fn nameless(incarnation: u32) -> KeyspaceFacts {
    KeyspaceFacts {
        name: format!("keyspace {incarnation}"),
        incarnation,
        seq: 0,
        volatile: false,
        unordered: false,
        default_ttl_ms: 0,
        compression_level: 3,
    }
}
