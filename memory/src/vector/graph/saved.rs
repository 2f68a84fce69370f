//! The graph in bytes, so that opening does not build it anew. Truth are the rows: a node is known
//! by the version of its row, and what does not fit the rows is left out when it is read.
//! Pure functions over slices; knows no store.
//!
//! A chunk has 1024 slots, one after the other; numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 8 a slot | version of the row; 0 when the slot is not in the graph, and then nothing follows |
//! | 1 | levels, the bottom counted |
//! | 1 a level | links |
//! | 4 a link | slot |
#![expect(clippy::cast_possible_truncation, reason = "links and levels are few")]

use std::ops::Range;

use crate::error::{Error, Result};
use crate::store::Version;
use crate::vector::arena::{Arena, Slot};
use crate::vector::graph::{Graph, LEVEL_MAX, State};

/// Slots of a chunk.
pub(in crate::vector) const CHUNK_SLOTS: Slot = 1024;
const FORMAT: u8 = 1;
/// No slot: the vector is gone.
const GONE: Slot = Slot::MAX;

/// The chunk of this number.
pub(in crate::vector) fn encode(graph: &Graph, arena: &Arena, chunk: u32) -> Vec<u8> {
    let begin = chunk.saturating_mul(CHUNK_SLOTS);
    let slots: Range<Slot> = begin..begin.saturating_add(CHUNK_SLOTS);
    let mut out = vec![FORMAT];
    for slot in slots {
        let version = arena.version(slot).filter(|_| graph.has(slot));
        out.extend_from_slice(&version.map_or(0, |version| version.0).to_le_bytes());
        if version.is_none() {
            continue;
        }
        let levels = graph.level(slot);
        out.push(levels as u8 + 1);
        for level in 0..=levels {
            let links = graph.links(slot, level);
            out.push(links.len() as u8);
            out.extend(links.iter().flat_map(|link| link.to_le_bytes()));
        }
    }
    out
}

/// The graph that these chunks hold, in the slots that `slot_of` says. A node that lost a quarter
/// of its neighbours is left out, to be entered anew.
///
/// Errors: [`Error::Corrupt`] when the bytes are no chunks.
pub(in crate::vector) fn decode(
    mut graph: Graph,
    end: Slot,
    chunks: &[impl AsRef<[u8]>],
    slot_of: impl Fn(Version) -> Option<Slot>,
) -> Result<Graph> {
    graph.reach(end);
    let mut places: Vec<Slot> = Vec::with_capacity(chunks.len() * CHUNK_SLOTS as usize);
    for chunk in chunks {
        read(chunk.as_ref(), |node| {
            places.push(node.version.and_then(&slot_of).unwrap_or(GONE));
            Ok(())
        })?;
    }
    let mut at = 0;
    let place = |slot: Slot| places.get(slot as usize).copied().filter(|slot| *slot != GONE);
    for chunk in chunks {
        read(chunk.as_ref(), |node| {
            let slot = place(at);
            at += 1;
            match slot {
                Some(slot) if slot < end => enter(&mut graph, slot, &node, place),
                _ => Ok(()),
            }
        })?;
    }
    graph.nodes = graph.states.iter().filter(|state| **state == State::In).count();
    graph.find_entry();
    Ok(graph)
}

fn enter(
    graph: &mut Graph,
    slot: Slot,
    node: &Node<'_>,
    place: impl Fn(Slot) -> Option<Slot>,
) -> Result<()> {
    let levels = node.levels.len();
    if levels > 1 {
        graph.upper.insert(slot, vec![Vec::new(); levels - 1]);
    }
    for (level, links) in node.levels.iter().enumerate() {
        if links.len() > graph.links_max(level) {
            let (got, max) = (links.len(), graph.links_max(level));
            return Err(Error::corrupt("graph", format!("{got} links, at most {max}")));
        }
        let links = links.iter().map(|link| Slot::from_le_bytes(*link));
        let kept: Vec<Slot> = links.clone().filter_map(&place).filter(|to| *to != slot).collect();
        graph.set_links(slot, level, &kept);
        if level == 0
            && let Some(own) = graph.states.get_mut(slot as usize)
        {
            *own = if kept.len() * 4 < links.len() * 3 { State::Loose } else { State::In };
        }
    }
    Ok(())
}

/// One slot of a chunk.
struct Node<'s> {
    version: Option<Version>,
    levels: Vec<&'s [[u8; 4]]>,
}

fn read(chunk: &[u8], mut each: impl FnMut(Node<'_>) -> Result<()>) -> Result<()> {
    let short = || Error::corrupt("graph", format!("a chunk that ends early, {}", chunk.len()));
    let (format, mut rest) = chunk.split_first().ok_or_else(short)?;
    if *format != FORMAT {
        return Err(Error::corrupt("graph", format!("format {format}, expected {FORMAT}")));
    }
    for _ in 0..CHUNK_SLOTS {
        let (version, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        rest = after;
        let version = Some(Version(u64::from_le_bytes(*version))).filter(|found| found.0 != 0);
        let mut levels = Vec::new();
        if version.is_some() {
            let (count, after) = rest.split_first().ok_or_else(short)?;
            rest = after;
            if !(1..=LEVEL_MAX + 1).contains(&usize::from(*count)) {
                return Err(Error::corrupt("graph", format!("a node of {count} levels")));
            }
            for _ in 0..*count {
                let (links, after) = rest.split_first().ok_or_else(short)?;
                let (links, after) =
                    after.split_at_checked(4 * usize::from(*links)).ok_or_else(short)?;
                levels.push(links.as_chunks().0);
                rest = after;
            }
        }
        each(Node { version, levels })?;
    }
    Ok(())
}
