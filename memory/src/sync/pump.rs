//! Sending, receiving, applying and acknowledging: one turn of the loop that a caller owns.
//! Knows frames and rows; how frames travel, the transport says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::store::{Batch, Millis, Ttl, retry};
use crate::sync::frame::{BUCKETS, Change, ENTRIES_LEN, ENTRIES_MAX, Frame};
use crate::sync::rows::{self, Header, PeerRow, Register};
use crate::sync::{
    DistributedSessionSync, KEY_LEN_MAX, NODE_LEN_MAX, Pumped, VALUE_LEN_MAX, places_after,
};

/// Frames that a peer is sent before it has acknowledged one.
const FRAMES_AHEAD: usize = 8;
/// Frames that one call of `pump` takes in.
const FRAMES_IN: usize = 256;
/// After this time what was not acknowledged is sent again.
pub(crate) const RESEND: Duration = Duration::from_millis(200);
/// How often sums are compared with a peer.
pub(crate) const DIGEST: Duration = Duration::from_secs(30);
/// A change from further ahead than this is refused: a clock that is wrong must not win for ever.
pub(crate) const DRIFT_MAX: Duration = Duration::from_hours(1);

/// What is known of a peer besides its row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// Up to which place it was sent changes, and when the last time without news.
    sent: u64,
    sent_at: Millis,
    /// When sums were compared.
    digest_at: Millis,
}

/// Which places of its order a peer's frame is about.
#[derive(Debug, Clone, Copy)]
struct Places {
    incarnation: u64,
    /// What the peer was told that we have.
    acked: u64,
    after: u64,
    upto: u64,
}

impl DistributedSessionSync {
    /// Sends what is due, takes in what came, applies and acknowledges it. Waits so long when there
    /// is nothing to take in. The caller owns the loop; [`DistributedSessionSync::spawn`] is one.
    #[doc(alias = "sync_worker")]
    pub fn pump(&self, wait: Duration) -> Result<Pumped> {
        let mut done = Pumped::default();
        self.send_due(&mut done)?;
        let mut wait = wait;
        for _ in 0..FRAMES_IN {
            let Some((peer, bytes)) = self.transport.recv(wait)? else { break };
            wait = Duration::ZERO;
            done.received += 1;
            let known = self.store.get(&self.ns, &rows::peer_key(&peer))?.is_some();
            match Frame::decode(&bytes) {
                Ok(frame) if known => self.take(&peer, frame, &mut done)?,
                _ => done.refused += 1,
            }
        }
        if done.received > 0 {
            self.send_due(&mut done)?;
        }
        Ok(done)
    }

    fn send(&self, peer: &str, frame: &Frame, done: &mut Pumped) -> Result<()> {
        match self.transport.send(peer, &frame.encode()?) {
            Ok(()) => done.sent += 1,
            Err(_) => done.lost += 1,
        }
        Ok(())
    }

    fn send_due(&self, done: &mut Pumped) -> Result<()> {
        let (_, header) = Header::read(&*self.store, &self.ns)?;
        let now = self.store.now();
        for (peer, row) in self.peer_rows()? {
            let mut link = self.links.lock().get(&peer).copied().unwrap_or_default();
            if link.sent < row.acked || now.since(link.sent_at) >= RESEND {
                link.sent = row.acked;
            }
            if link.sent == row.acked && header.place > row.acked {
                link.sent = self.send_changes(&peer, row.acked, header.incarnation, done)?;
                link.sent_at = now;
            }
            let first = link.digest_at == Millis(0) && header.place <= row.acked;
            if first || now.since(link.digest_at) >= DIGEST && link.digest_at > Millis(0) {
                let frame = Frame::Digest { sums: self.sums()?, is_answer: false };
                self.send(&peer, &frame, done)?;
                link.digest_at = now;
            }
            self.links.lock().insert(peer, link);
        }
        Ok(())
    }

    /// Sends some frames of what changed behind a place; answers up to where.
    fn send_changes(
        &self,
        peer: &str,
        acked: u64,
        incarnation: u64,
        done: &mut Pumped,
    ) -> Result<u64> {
        let mut after = acked;
        for _ in 0..FRAMES_AHEAD {
            let rows = self.store.scan(&self.ns, places_after(after).limit(ENTRIES_MAX))?;
            let (mut changes, mut len, mut upto) = (Vec::new(), 0, after);
            for (place, entry) in &rows {
                if len >= ENTRIES_LEN {
                    break;
                }
                upto = crate::keys::number(place.get(1..).unwrap_or(&[]))?;
                let key = String::from_utf8_lossy(&entry.value).into_owned();
                // Moved on since the scan: it comes with its later place.
                let Some(register) = rows::register(&*self.store, &self.ns, &key)? else {
                    continue;
                };
                if register.hlc.node != peer {
                    let change = change(key, register);
                    len += change.key.len() + change.value.as_ref().map_or(0, String::len);
                    changes.push(change);
                }
            }
            if upto == after {
                break;
            }
            let frame = Frame::Changes { incarnation, acked, after, upto, changes };
            self.send(peer, &frame, done)?;
            after = upto;
        }
        Ok(after)
    }

    fn take(&self, peer: &str, frame: Frame, done: &mut Pumped) -> Result<()> {
        match frame {
            Frame::Changes { incarnation, acked, after, upto, changes } => {
                let from_now = self.store.now().after(DRIFT_MAX);
                let crooked = |one: &Change| {
                    one.hlc.at > from_now
                        || one.key.len() as u64 > KEY_LEN_MAX
                        || one.hlc.node.len() as u64 > NODE_LEN_MAX
                        || one.value.as_ref().is_some_and(|text| text.len() as u64 > VALUE_LEN_MAX)
                };
                if changes.iter().any(crooked) {
                    done.refused += 1;
                    return Ok(());
                }
                let places = Places { incarnation, acked, after, upto };
                let row = retry(&self.ns, || self.apply(peer, places, &changes));
                match row {
                    Ok((applied, row)) => {
                        done.applied += applied;
                        let (_, header) = Header::read(&*self.store, &self.ns)?;
                        let (of, upto) = (row.seen_of, row.seen);
                        let frame = Frame::Ack { incarnation: header.incarnation, of, upto };
                        self.send(peer, &frame, done)
                    }
                    Err(Error::Codec(_) | Error::Limit { .. }) => {
                        done.refused += 1;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Frame::Ack { incarnation, of, upto } => self.note_ack(peer, incarnation, of, upto),
            Frame::Digest { sums, is_answer } => self.compare(peer, &sums, is_answer, done),
        }
    }

    /// Applies changes in one commit with how far the peer has sent.
    fn apply(&self, peer: &str, places: Places, changes: &[Change]) -> Result<(u64, PeerRow)> {
        let (entry, mut header) = Header::read(&*self.store, &self.ns)?;
        let mut newest: BTreeMap<&str, &Change> = BTreeMap::new();
        for one in changes {
            let kept = newest.entry(&one.key).or_insert(one);
            if one.hlc > kept.hlc {
                *kept = one;
            }
        }
        let mut batch = Batch::new(&self.ns);
        let mut applied = 0;
        for (key, one) in newest {
            let old = rows::register(&*self.store, &self.ns, key)?;
            if old.as_ref().is_some_and(|old| old.hlc >= one.hlc) {
                continue;
            }
            let codec = |error: serde_json::Error| Error::Codec(error.to_string());
            let value =
                one.value.as_deref().map(serde_json::from_str).transpose().map_err(codec)?;
            batch = header.stage(batch, key, old.as_ref(), (one.hlc.clone(), value))?;
            applied += 1;
        }
        let peer_key = rows::peer_key(peer);
        let peer_entry = self.store.get(&self.ns, &peer_key)?;
        let row = peer_entry.as_ref().map(|entry| Schema::default().decode(&entry.value));
        let old: PeerRow = row.transpose()?.unwrap_or_default();
        let mut row = old;
        if places.incarnation > row.seen_of {
            (row.seen_of, row.seen) = (places.incarnation, 0);
        }
        let set_back = places.incarnation == row.seen_of && places.acked > row.seen;
        if set_back {
            // We have acknowledged more than we know of: this store was set back. As another one
            // it is sent everything again.
            header.incarnation += 1;
        } else if places.incarnation == row.seen_of && places.after <= row.seen {
            row.seen = row.seen.max(places.upto);
        }
        if applied > 0 || set_back || row != old {
            let value = Schema::default().encode(&row)?;
            let mut whole = header.batch(&self.ns, entry.as_ref())?;
            whole.ops.extend(batch.ops);
            whole = whole.unchanged(peer_key.clone(), peer_entry.as_ref());
            self.store.commit(whole.put(peer_key, value, Ttl::Never))?;
        }
        Ok((applied, row))
    }

    fn note_ack(&self, peer: &str, by: u64, of: u64, upto: u64) -> Result<()> {
        let key = rows::peer_key(peer);
        retry(&self.ns, || {
            let (read, mut header) = Header::read(&*self.store, &self.ns)?;
            if of == header.incarnation && upto > header.place {
                // The peer has seen places that we do not know of: this store was set back.
                header.incarnation += 1;
                return self.store.commit(header.batch(&self.ns, read.as_ref())?).map(|_| ());
            }
            let Some(entry) = self.store.get(&self.ns, &key)? else { return Ok(()) };
            let old: PeerRow = Schema::default().decode(&entry.value)?;
            let mut row = old;
            // Of a store that was here before this one it says nothing.
            let upto = if of == header.incarnation { upto } else { 0 };
            if by > row.acked_by {
                (row.acked_by, row.acked) = (by, upto);
            } else if by == row.acked_by {
                row.acked = row.acked.max(upto);
            }
            if row == old {
                return Ok(());
            }
            let value = Schema::default().encode(&row)?;
            let batch = Batch::new(&self.ns).unchanged(key.clone(), Some(&entry));
            self.store.commit(batch.put(key.clone(), value, Ttl::Never)).map(|_| ())
        })
    }

    /// Sums over all keys, each in one of 256 buckets.
    pub(crate) fn sums(&self) -> Result<Vec<u64>> {
        let mut sums = vec![0_u64; BUCKETS];
        self.each_register(|key, register| {
            if let Some(sum) = sums.get_mut(bucket(&key)) {
                *sum ^= hash(&format!("{key}\0{}", register.hlc));
            }
            Ok(())
        })?;
        Ok(sums)
    }

    /// Sends what this node holds of the buckets that differ, and says what it has once.
    fn compare(&self, peer: &str, sums: &[u64], is_answer: bool, done: &mut Pumped) -> Result<()> {
        let own = self.sums()?;
        if own == sums {
            return Ok(());
        }
        let mut frames: Vec<Vec<Change>> = Vec::new();
        let mut len = ENTRIES_LEN;
        self.each_register(|key, register| {
            let at = bucket(&key);
            if own.get(at) != sums.get(at) {
                let change = change(key, register);
                if len >= ENTRIES_LEN || frames.last().is_none_or(|all| all.len() == ENTRIES_MAX) {
                    frames.push(Vec::new());
                    len = 0;
                }
                len += change.key.len() + change.value.as_ref().map_or(0, String::len);
                frames.last_mut().into_iter().for_each(|all| all.push(change.clone()));
            }
            Ok(())
        })?;
        for changes in frames {
            let (incarnation, acked, after, upto) = (0, 0, 0, 0);
            let frame = Frame::Changes { incarnation, acked, after, upto, changes };
            self.send(peer, &frame, done)?;
        }
        if !is_answer {
            self.send(peer, &Frame::Digest { sums: own, is_answer: true }, done)?;
        }
        Ok(())
    }
}

fn change(key: String, register: Register) -> Change {
    let hlc = register.hlc.clone();
    Change { key, hlc, value: register.live().map(|value| value.to_string()) }
}

fn bucket(key: &str) -> usize {
    usize::from(hash(key).to_le_bytes()[0])
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo), mixed once more: the same on every node.
fn hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (hash ^ (hash >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
