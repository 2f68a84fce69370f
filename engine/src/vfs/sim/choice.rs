//! Which effects survive a power cut, and what fills a file that grew without its data.
//! Knows that a sector holds one of its versions; knows nothing of what is on the disk.

use std::collections::BTreeMap;

use super::Survivors;
use super::effect::{Change, Effect, NodeId, SECTOR_LEN};
use super::pages::{Pages, mix};

/// Numbers that a seed determines (the generator is `SplitMix64`).
#[derive(Debug, Clone)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        let mixed = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed
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

/// How many versions each place has, in the order of their first effect; and the place of each
/// effect in that list.
fn versions(effects: &[Effect]) -> (Vec<u64>, Vec<usize>) {
    let mut places: BTreeMap<(NodeId, Place), usize> = BTreeMap::new();
    let mut counts: Vec<u64> = Vec::new();
    let mut place_of_effect = Vec::with_capacity(effects.len());
    for (index, effect) in effects.iter().enumerate() {
        let place = *places.entry(place_of(index, effect)).or_insert(counts.len());
        if place == counts.len() {
            counts.push(0);
        }
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
        place_of_effect.push(place);
    }
    (counts, place_of_effect)
}

/// How many different subsets a disk could keep; `u64::MAX` when they are too many to count.
pub(super) fn outcomes(effects: &[Effect]) -> u64 {
    versions(effects).0.iter().fold(1, |all: u64, count| all.saturating_mul(count + 1))
}

/// The effects that reached the disk, in order, and the random numbers that go on where chance
/// chose.
pub(super) fn surviving(
    mut effects: Vec<Effect>,
    survivors: Survivors,
) -> (Vec<Effect>, Option<Random>) {
    let len = effects.len();
    let chosen = |keep: &dyn Fn(usize) -> bool| whole_versions(&effects, keep);
    match survivors {
        Survivors::None => (Vec::new(), None),
        Survivors::All => (effects, None),
        Survivors::Prefix(count) => {
            effects.truncate(count);
            (effects, None)
        }
        Survivors::Suffix(count) => (chosen(&|at| at + count >= len), None),
        Survivors::AllBut(left) => (chosen(&|at| at != left), None),
        Survivors::Only(one) => (chosen(&|at| at == one), None),
        Survivors::Outcome(index) => {
            let (mut counts, places) = versions(&effects);
            let mut index = index;
            for count in &mut counts {
                let radix = *count + 1;
                *count = index % radix;
                index /= radix;
            }
            (take(effects, &places, &mut counts, None), None)
        }
        Survivors::Random(seed) => {
            let mut random = Random(seed);
            (random_subset(effects, &mut random), Some(random))
        }
    }
}

/// The chosen effects, and before each of them the earlier ones of its place: a sector is written
/// whole, so that a later version holds the earlier ones.
fn whole_versions(effects: &[Effect], keep: &dyn Fn(usize) -> bool) -> Vec<Effect> {
    let (mut counts, places) = versions(effects);
    counts.fill(0);
    let mut seen = counts.clone();
    for (at, &place) in places.iter().enumerate() {
        if let (Some(seen), Some(count)) = (seen.get_mut(place), counts.get_mut(place)) {
            *seen += 1;
            *count = if keep(at) { *seen } else { *count };
        }
    }
    take(effects.to_vec(), &places, &mut counts, None)
}

/// Of each place the first so many versions; the last of them may be torn by chance.
fn take(
    effects: Vec<Effect>,
    places: &[usize],
    counts: &mut [u64],
    mut random: Option<&mut Random>,
) -> Vec<Effect> {
    let mut kept = Vec::new();
    for (mut effect, &place) in effects.into_iter().zip(places) {
        let Some(count) = counts.get_mut(place).filter(|count| **count > 0) else { continue };
        *count -= 1;
        if let Some(random) = random.as_deref_mut()
            && *count == 0
            && random.below(8) == 0
        {
            tear(&mut effect.change, random);
        }
        kept.push(effect);
    }
    kept
}

fn random_subset(effects: Vec<Effect>, random: &mut Random) -> Vec<Effect> {
    let (mut counts, places) = versions(&effects);
    // Some images lose nearly all, some nearly nothing, some are mixed.
    let all_of_16 = random.below(17);
    for count in &mut counts {
        *count = match random.below(16) {
            roll if roll < all_of_16 => *count,
            roll if roll % 2 == 0 => 0,
            _ => random.below(*count + 1),
        };
    }
    take(effects, &places, &mut counts, Some(random))
}

/// A page that is stored to while the kernel writes it out reaches the disk as it is at that
/// moment: the last store may be there in part. Words are stored whole.
fn tear(change: &mut Change, random: &mut Random) {
    if let Change::Bytes { offset, bytes, mapped: true } = change {
        let words = bytes.len() as u64 / 8;
        let until_word = 8 - *offset % 8;
        let cut = until_word + 8 * random.below(words + 1);
        let cut = usize::try_from(cut).unwrap_or(usize::MAX);
        if let Some(head) = bytes.get(..cut) {
            *bytes = head.into();
        }
    }
}

/// What stands where a file grew and its data did not arrive.
pub(super) struct Filler<'a> {
    /// `None`: zeros.
    pub random: Option<&'a mut Random>,
    /// What other files hold: the old content of a recycled block.
    pub stale: &'a [Pages],
}

impl Filler<'_> {
    /// The bytes from `from` on. `None`, zeros, in most files; noise or old blocks in some.
    pub(super) fn fill(&mut self, from: usize, len: usize) -> Option<Vec<u8>> {
        let random = self.random.as_deref_mut()?;
        let mut grown = vec![0; len];
        match random.below(6) {
            0 => grown.fill_with(|| random.next().to_le_bytes()[0]),
            1 if !self.stale.is_empty() => {
                let chosen = random.below(self.stale.len() as u64);
                let source = self.stale.get(usize::try_from(chosen).unwrap_or(0))?;
                source.read(from, &mut grown);
            }
            _ => return None,
        }
        Some(grown)
    }
}
