//! Reading and checking everything while the store is in use.
//! Reports damage; repairs nothing.

use std::sync::Arc;

use crate::error::Damage;
use crate::format::record::RecordKind;
use crate::tiers::Tiers;
use crate::warm::active::walk_records;
use crate::warm::segment::Segment;

/// How far a long piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, as known at the start.
    pub total: u64,
}

/// What [`crate::Db::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Records checked.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that did not hold; empty when the store is sound.
    pub damage: Vec<Damage>,
}

impl Verified {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

pub(crate) fn verify(tiers: &Tiers, mut progress: impl FnMut(Progress)) -> Verified {
    let segments = tiers.segments.load_full();
    let archives = tiers.cold.load_full();
    let total = segments.iter().map(|segment| segment.records_end()).sum::<u64>()
        + archives.entries().iter().map(|entry| entry.archive.file_len()).sum::<u64>();
    let mut verified = Verified { damage: tiers.report.damage.clone(), ..Verified::default() };
    for segment in segments.iter() {
        verify_segment(segment, &mut verified);
        progress(Progress { done: verified.bytes, total });
    }
    for entry in archives.entries() {
        let before = verified.bytes;
        let damage = entry.archive.verify(&mut |done| {
            progress(Progress { done: (before + done).min(total), total });
        });
        verified.damage.extend(damage);
        verified.files += 1;
        verified.records += u64::from(entry.archive.record_count());
        verified.bytes += entry.archive.file_len();
    }
    progress(Progress { done: total, total });
    verified
}

/// Every record's checksums, and the trailer against the records.
fn verify_segment(segment: &Arc<Segment>, verified: &mut Verified) {
    let end =
        if segment.sealed().is_some() { segment.records_end() } else { segment.map.published() };
    verified.files += 1;
    let mut keyed = 0_u64;
    let walked = walk_records(segment, end, |offset, record| {
        if let Err(error) = record.check_body() {
            verified.damage.push(segment.damage("verify record", u64::from(offset), error));
        }
        verified.records += 1;
        verified.bytes += record.header.encoded_len();
        keyed += u64::from(matches!(record.header.kind, RecordKind::Put | RecordKind::Tombstone));
        Ok(())
    });
    if let Err(crate::error::Error::Corrupt(damage)) = walked {
        verified.damage.push(*damage);
    }
    if segment.sealed().is_none() {
        return;
    }
    match segment.trailer() {
        Err(damage) => verified.damage.push(damage),
        Ok(trailer) => {
            for entry in trailer.entries() {
                let found = entry.map(|entry| (entry.seq, segment.record(u64::from(entry.offset))));
                match found {
                    Ok((seq, Ok(record))) if record.header.seq == seq => {
                        keyed = keyed.wrapping_sub(1);
                    }
                    Ok((seq, _)) => {
                        let error =
                            crate::format::cursor::FieldError::new("record", "another", seq.0);
                        verified.damage.push(segment.damage("verify trailer", 0, error));
                    }
                    Err(error) => verified.damage.push(segment.damage("verify trailer", 0, error)),
                }
            }
            if keyed != 0 {
                let error = crate::format::cursor::FieldError::new("entry count", keyed, 0);
                verified.damage.push(segment.damage("verify trailer", 0, error));
            }
        }
    }
}
