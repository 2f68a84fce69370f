//! Which effects survive a power cut, and what fills a file that grew without its data.
//! Knows that a sector holds one of its versions; knows nothing of what is on the disk.

use std::collections::BTreeMap;

use super::Survivors;
use super::effect::{Change, Effect, NodeId, SECTOR_LEN};

/// Numbers that a seed determines (the generator is `SplitMix64`).
#[derive(Debug, Clone)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What an effect competes for: its versions reach the disk in order, each whole, and the disk
/// holds one of them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Sector(u64),
    Length,
    Name(String),
    Punch(usize),
}

fn place_of(index: usize, effect: &Effect) -> (NodeId, Place) {
    let place = match &effect.change {
        Change::Bytes { offset, .. } => Place::Sector(offset / SECTOR_LEN),
        Change::Length(_) => Place::Length,
        Change::Name { name, .. } => Place::Name(name.clone()),
        Change::Punch { .. } => Place::Punch(index),
    };
    (effect.node, place)
}

/// The effects that reached the disk, in order, and the random numbers that go on where chance
/// chose.
pub(super) fn surviving(
    mut effects: Vec<Effect>,
    survivors: Survivors,
) -> (Vec<Effect>, Option<Random>) {
    match survivors {
        Survivors::None => (Vec::new(), None),
        Survivors::All => (effects, None),
        Survivors::Prefix(count) => {
            effects.truncate(count);
            (effects, None)
        }
        Survivors::Random(seed) => {
            let mut random = Random(seed);
            (random_subset(effects, &mut random), Some(random))
        }
    }
}

fn random_subset(effects: Vec<Effect>, random: &mut Random) -> Vec<Effect> {
    let mut left: BTreeMap<(NodeId, Place), u64> = BTreeMap::new();
    for (index, effect) in effects.iter().enumerate() {
        *left.entry(place_of(index, effect)).or_default() += 1;
    }
    // Some images lose nearly all, some nearly nothing, some are mixed.
    let all_of_16 = random.below(17);
    for count in left.values_mut() {
        *count = match random.below(16) {
            roll if roll < all_of_16 => *count,
            roll if roll % 2 == 0 => 0,
            _ => random.below(*count + 1),
        };
    }
    let mut kept = Vec::new();
    for (index, mut effect) in effects.into_iter().enumerate() {
        let Some(count) = left.get_mut(&place_of(index, &effect)).filter(|count| **count > 0)
        else {
            continue;
        };
        *count -= 1;
        if *count == 0 && random.below(8) == 0 {
            tear(&mut effect.change, random);
        }
        kept.push(effect);
    }
    kept
}

/// A page that is stored to while the kernel writes it out reaches the disk as it is at that
/// moment: the last store may be there in part. Words are stored whole.
fn tear(change: &mut Change, random: &mut Random) {
    if let Change::Bytes { offset, bytes, mapped: true } = change {
        let words = bytes.len() as u64 / 8;
        let until_word = 8 - *offset % 8;
        let cut = until_word + 8 * random.below(words + 1);
        bytes.truncate(usize::try_from(cut).unwrap_or(usize::MAX));
    }
}

/// What stands where a file grew and its data did not arrive.
pub(super) struct Filler<'a> {
    /// `None`: zeros.
    pub random: Option<&'a mut Random>,
    /// Bytes that other files hold, as an old block would.
    pub stale: &'a [u8],
}

impl Filler<'_> {
    /// Zeros in most files; noise or old blocks in some.
    pub(super) fn fill(&mut self, grown: &mut [u8]) {
        let Some(random) = self.random.as_deref_mut() else { return };
        match random.below(6) {
            0 => grown.fill_with(|| random.next().to_le_bytes()[0]),
            1 if !self.stale.is_empty() => {
                for (target, byte) in grown.iter_mut().zip(self.stale.iter().cycle()) {
                    *target = *byte;
                }
            }
            _ => {}
        }
    }
}
