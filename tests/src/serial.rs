//! Is a recorded history of transactions serializable? Adya's dependency graph (1999): who wrote
//! what another read (wr), replaced what another wrote (ww) or read (rw), and, where real time
//! counts, who began after another had ended. A circle of these has no serial order.
//! Knows transactions and versions; how the order of versions was found is the recorder's affair.
//!
//! A range read is a read of every key in it, those that were not there included: a key that turns
//! up later replaces the first version, "absent", which is how phantoms are seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// A version of a key: a number that its write has to itself among those of the key.
pub type Version = u64;

/// What was there before the first write.
pub const ABSENT: Version = 0;

/// One transaction that committed, or a moment at which several keys were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Stamp before it began.
    pub start: u64,
    /// Stamp after it returned.
    pub end: u64,
    /// Keys and the versions it read; its own writes are not among them.
    pub reads: Vec<(u64, Version)>,
    /// Keys and the last version it wrote of each.
    pub writes: Vec<(u64, Version)>,
}

/// Whether a transaction that ended before another began must come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealTime {
    /// Yes: strict serializability.
    Counts,
    /// No: any serial order will do.
    Free,
}

/// Why one transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The other replaced its version of this key.
    Replaced(u64),
    /// The other read its version of this key.
    ReadBy(u64),
    /// It read the version of this key that the other replaced.
    ReadBefore(u64),
    /// It had ended when the other began.
    Ended,
}

/// One step of a circle: by its index in the history, and why it comes before the next.
pub type Step = (usize, Why);

/// Why a history is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A version was read that no committed transaction left there.
    NeverCommitted {
        /// The index of the reader.
        reader: usize,
        /// The key.
        key: u64,
        /// What was read.
        version: Version,
    },
    /// A committed version is not in the order of its key: it was overwritten unseen.
    LostWrite {
        /// The index of the writer.
        writer: usize,
        /// The key.
        key: u64,
        /// What was lost.
        version: Version,
    },
    /// A version of the order has no writer, or two.
    Writers {
        /// The key.
        key: u64,
        /// The version.
        version: Version,
    },
    /// Each comes before the next, and the last before the first.
    Circle(Vec<Step>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circle(steps) => {
                writeln!(f, "no serial order: each of these comes before the next, in a circle")?;
                steps.iter().try_for_each(|(index, why)| writeln!(f, "  {index}: {why:?}"))
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// Whether the transactions have a serial order. `orders` lists the committed versions of each key,
/// oldest first, without [`ABSENT`]; a key that was never written needs no entry.
///
/// # Errors
///
/// What is wrong with the versions, or the shortest circle that was found.
pub fn check(
    history: &[Transaction],
    orders: &BTreeMap<u64, Vec<Version>>,
    time: RealTime,
) -> Result<(), Violation> {
    let writers = writers(history, orders)?;
    let mut graph = Graph { edges: vec![Vec::new(); history.len()], moments: 0 };
    for (key, order) in orders {
        for pair in order.windows(2) {
            if let [old, new] = pair
                && let (Some(a), Some(b)) = (writers.get(&(*key, *old)), writers.get(&(*key, *new)))
            {
                graph.edge(*a, *b, Why::Replaced(*key));
            }
        }
    }
    let successors = successors(orders);
    for (reader, transaction) in history.iter().enumerate() {
        for (key, version) in &transaction.reads {
            match writers.get(&(*key, *version)) {
                Some(writer) => graph.edge(*writer, reader, Why::ReadBy(*key)),
                None if *version == ABSENT => {}
                None => {
                    let (key, version) = (*key, *version);
                    return Err(Violation::NeverCommitted { reader, key, version });
                }
            }
            let next = successors.get(&(*key, *version));
            if let Some(writer) = next.and_then(|next| writers.get(&(*key, *next))) {
                graph.edge(reader, *writer, Why::ReadBefore(*key));
            }
        }
    }
    if time == RealTime::Counts {
        graph.add_time(history);
    }
    graph.circle().map_or(Ok(()), |steps| Err(Violation::Circle(steps)))
}

type Place = (u64, Version);

/// Who wrote each version; every version of an order has one writer, every write is in its order.
fn writers(
    history: &[Transaction],
    orders: &BTreeMap<u64, Vec<Version>>,
) -> Result<BTreeMap<Place, usize>, Violation> {
    let places = |(key, order): (&u64, &Vec<Version>)| {
        let key = *key;
        order.iter().map(|version| (key, *version)).collect::<Vec<Place>>()
    };
    let listed: BTreeSet<Place> = orders.iter().flat_map(places).collect();
    let mut writers = BTreeMap::new();
    for (writer, transaction) in history.iter().enumerate() {
        for (key, version) in transaction.writes.iter().copied() {
            if !listed.contains(&(key, version)) {
                return Err(Violation::LostWrite { writer, key, version });
            }
            if writers.insert((key, version), writer).is_some() {
                return Err(Violation::Writers { key, version });
            }
        }
    }
    match listed.into_iter().find(|place| !writers.contains_key(place)) {
        Some((key, version)) => Err(Violation::Writers { key, version }),
        None => Ok(writers),
    }
}

/// The version that replaced each.
fn successors(orders: &BTreeMap<u64, Vec<Version>>) -> BTreeMap<Place, Version> {
    let mut successors = BTreeMap::new();
    for (key, order) in orders {
        let before = std::iter::once(&ABSENT).chain(order);
        successors.extend(before.zip(order).map(|(old, new)| ((*key, *old), *new)));
    }
    successors
}

/// Transactions, and behind them moments: each end leads to its moment, each moment to the next,
/// and a moment to whoever began after it. So time costs two edges a transaction, not one a pair.
struct Graph {
    edges: Vec<Vec<(usize, Why)>>,
    moments: usize,
}

impl Graph {
    fn edge(&mut self, from: usize, to: usize, why: Why) {
        if from != to
            && let Some(edges) = self.edges.get_mut(from)
        {
            edges.push((to, why));
        }
    }

    fn add_time(&mut self, history: &[Transaction]) {
        let first = self.edges.len();
        let mut ends: Vec<(u64, usize)> =
            history.iter().enumerate().map(|(index, one)| (one.end, index)).collect();
        ends.sort_unstable();
        self.moments = ends.len();
        self.edges.resize(first + ends.len(), Vec::new());
        for (moment, (_, index)) in ends.iter().enumerate() {
            self.edge(*index, first + moment, Why::Ended);
            if moment > 0 {
                self.edge(first + moment - 1, first + moment, Why::Ended);
            }
        }
        for (index, transaction) in history.iter().enumerate() {
            let ended_before = ends.partition_point(|(end, _)| *end < transaction.start);
            if ended_before > 0 {
                self.edge(first + ended_before - 1, index, Why::Ended);
            }
        }
    }

    /// The shortest circle through one of those left when all that nothing points to were taken
    /// away, again and again.
    fn circle(&self) -> Option<Vec<Step>> {
        let transactions = self.edges.len() - self.moments;
        let left = self.left();
        let mut shortest: Option<Vec<Step>> = None;
        for (looked_at, node) in left.into_iter().filter(|node| *node < transactions).enumerate() {
            if shortest.is_some() && looked_at > 200 {
                break;
            }
            if let Some(circle) = self.circle_through(node)
                && shortest.as_ref().is_none_or(|shortest| circle.len() < shortest.len())
            {
                shortest = Some(circle);
            }
        }
        let of_transactions =
            |steps: Vec<Step>| steps.into_iter().filter(|(node, _)| *node < transactions).collect();
        shortest.map(of_transactions)
    }

    /// Whoever is on a circle or behind one.
    fn left(&self) -> Vec<usize> {
        let mut incoming = vec![0_usize; self.edges.len()];
        for (to, _) in self.edges.iter().flatten() {
            incoming.iter_mut().skip(*to).take(1).for_each(|count| *count += 1);
        }
        let free = |(node, count): (usize, &usize)| (*count == 0).then_some(node);
        let mut free: Vec<usize> = incoming.iter().enumerate().filter_map(free).collect();
        while let Some(node) = free.pop() {
            for (to, _) in self.edges.get(node).into_iter().flatten() {
                if let Some(count) = incoming.get_mut(*to) {
                    *count -= 1;
                    if *count == 0 {
                        free.push(*to);
                    }
                }
            }
        }
        incoming
            .iter()
            .enumerate()
            .filter_map(|(node, count)| (*count > 0).then_some(node))
            .collect()
    }

    fn circle_through(&self, start: usize) -> Option<Vec<Step>> {
        let mut came: BTreeMap<usize, Step> = BTreeMap::new();
        let mut ahead = VecDeque::from([start]);
        while let Some(node) = ahead.pop_front() {
            for (to, why) in self.edges.get(node).into_iter().flatten() {
                if came.contains_key(to) {
                    continue;
                }
                came.insert(*to, (node, *why));
                if *to == start {
                    return Some(walk_back(&came, start));
                }
                ahead.push_back(*to);
            }
        }
        None
    }
}

fn walk_back(came: &BTreeMap<usize, Step>, start: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = start;
    while let Some((node, why)) = came.get(&at) {
        steps.push((*node, *why));
        at = *node;
        if at == start {
            break;
        }
    }
    steps.reverse();
    steps
}

/// The version that a list stands for, of a key whose value is the list of all its versions: each
/// write adds one. The list at the end is the key's order, and what was read is a beginning of it.
///
/// # Errors
///
/// What was read when it is not: two writes did not see each other, or one that was read is gone.
pub fn version_of_list(last: &[Version], read: &[Version]) -> Result<Version, String> {
    if last.starts_with(read) {
        return Ok(read.last().copied().unwrap_or(ABSENT));
    }
    Err(format!("read {read:?}, which is no beginning of {last:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const X: u64 = 1;
    const Y: u64 = 2;

    fn at(start: u64, end: u64, reads: &[Place], writes: &[Place]) -> Transaction {
        Transaction { start, end, reads: reads.to_vec(), writes: writes.to_vec() }
    }

    fn orders(of: &[(u64, &[Version])]) -> BTreeMap<u64, Vec<Version>> {
        of.iter().map(|(key, order)| (*key, order.to_vec())).collect()
    }

    fn circle(history: &[Transaction], of: &[(u64, &[Version])]) -> Vec<Step> {
        match check(history, &orders(of), RealTime::Free) {
            Err(Violation::Circle(steps)) => steps,
            other => panic!("expected a circle, got {other:?}"),
        }
    }

    #[test]
    fn write_skew_is_caught() {
        // Each reads what the other writes.
        let history = [
            at(0, 9, &[(X, ABSENT), (Y, ABSENT)], &[(X, 1)]),
            at(1, 8, &[(X, ABSENT), (Y, ABSENT)], &[(Y, 2)]),
        ];
        let steps = circle(&history, &[(X, &[1]), (Y, &[2])]);
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert!(steps.iter().all(|(_, why)| matches!(why, Why::ReadBefore(_))), "{steps:?}");
    }

    #[test]
    fn a_phantom_is_caught() {
        // Both count the keys 10 to 13 and find one; each adds its own.
        let range = [(10, 1), (11, ABSENT), (12, ABSENT), (13, ABSENT)];
        let history =
            [at(0, 1, &[], &[(10, 1)]), at(2, 9, &range, &[(12, 1)]), at(3, 8, &range, &[(13, 1)])];
        let steps = circle(&history, &[(10, &[1]), (12, &[1]), (13, &[1])]);
        assert_eq!(steps.iter().map(|(index, _)| *index).sum::<usize>(), 3, "{steps:?}");
    }

    #[test]
    fn a_lost_update_is_caught() {
        let history = [at(0, 1, &[], &[(X, 1)]), at(2, 9, &[(X, 1)], &[(X, 2)])];
        assert_eq!(check(&history, &orders(&[(X, &[1, 2])]), RealTime::Counts), Ok(()));
        let mut history = history.to_vec();
        history.push(at(3, 8, &[(X, 1)], &[(X, 3)]));
        assert_eq!(circle(&history, &[(X, &[1, 2, 3])]).len(), 2);
        let lost = check(&history, &orders(&[(X, &[1, 3])]), RealTime::Free);
        assert_eq!(lost, Err(Violation::LostWrite { writer: 1, key: X, version: 2 }));
    }

    #[test]
    fn the_anomaly_that_a_read_only_transaction_sees_is_caught() {
        // Fekete, O'Neil and O'Neil (2004): without the reader the other two have an order.
        let (deposit, charge) =
            (at(4, 5, &[(Y, ABSENT)], &[(Y, 1)]), at(0, 9, &[(X, ABSENT), (Y, ABSENT)], &[(X, 2)]));
        let of: &[(u64, &[Version])] = &[(X, &[2]), (Y, &[1])];
        let mut history = vec![deposit, charge];
        assert_eq!(check(&history, &orders(of), RealTime::Free), Ok(()));
        history.push(at(6, 7, &[(X, ABSENT), (Y, 1)], &[]));
        let steps = circle(&history, of);
        assert_eq!(steps.len(), 3, "{steps:?}");
    }

    #[test]
    fn half_of_a_transaction_is_caught() {
        let history = [
            at(0, 1, &[], &[(X, 1), (Y, 1)]),
            at(2, 3, &[], &[(X, 2), (Y, 2)]),
            at(2, 3, &[(X, 1), (Y, 2)], &[]),
        ];
        assert_eq!(circle(&history, &[(X, &[1, 2]), (Y, &[1, 2])]).len(), 2);
    }

    #[test]
    fn a_version_that_nobody_committed_is_caught() {
        let history = [at(0, 1, &[], &[(X, 1)]), at(2, 3, &[(X, 9)], &[])];
        let refusal = check(&history, &orders(&[(X, &[1])]), RealTime::Free);
        assert_eq!(refusal, Err(Violation::NeverCommitted { reader: 1, key: X, version: 9 }));
        let refusal = check(&history[..1], &orders(&[(X, &[1, 9])]), RealTime::Free);
        assert_eq!(refusal, Err(Violation::Writers { key: X, version: 9 }));
        assert!(version_of_list(&[1, 2, 3], &[1, 3]).is_err());
        assert_eq!(version_of_list(&[1, 2, 3], &[1, 2]), Ok(2));
        assert_eq!(version_of_list(&[1, 2, 3], &[]), Ok(ABSENT));
    }

    #[test]
    fn an_old_moment_is_serializable_and_refused_where_real_time_counts() {
        let history = [at(0, 1, &[], &[(X, 1)]), at(2, 3, &[(X, ABSENT)], &[])];
        let orders = orders(&[(X, &[1])]);
        assert_eq!(check(&history, &orders, RealTime::Free), Ok(()));
        let refusal = check(&history, &orders, RealTime::Counts);
        let Err(Violation::Circle(steps)) = refusal else { panic!("{refusal:?}") };
        assert_eq!(steps, [(0, Why::Ended), (1, Why::ReadBefore(X))]);
        // Not while they overlap.
        let overlap = [history[0].clone(), at(1, 3, &[(X, ABSENT)], &[])];
        assert_eq!(check(&overlap, &orders, RealTime::Counts), Ok(()));
    }

    /// Transactions that took effect one by one, each at a moment inside its stamps.
    fn sound(random: &mut Random, count: usize) -> (Vec<Transaction>, BTreeMap<u64, Vec<Version>>) {
        let mut orders: BTreeMap<u64, Vec<Version>> = BTreeMap::new();
        let mut history = Vec::new();
        for i in 0..count as u64 {
            let mut one = Transaction {
                start: 10_000 + 10 * i - random.below(50),
                end: 10_000 + 10 * i + random.below(50),
                ..Transaction::default()
            };
            for key in 0..8 {
                let order = orders.entry(key).or_default();
                if random.chance(40) {
                    one.reads.push((key, order.last().copied().unwrap_or(ABSENT)));
                }
                if random.chance(20) {
                    order.push(i + 1);
                    one.writes.push((key, i + 1));
                }
            }
            history.push(one);
        }
        (history, orders)
    }

    #[test]
    fn what_took_effect_one_by_one_is_accepted_and_one_old_read_in_it_is_caught() {
        let mut random = Random::from_environment(8);
        for _ in 0..20 {
            let (mut history, orders) = sound(&mut random, 500);
            assert_eq!(check(&history, &orders, RealTime::Counts), Ok(()));
            let at = random.within(200..500);
            // It wrote key 9 between two others and read key 0 as of long before.
            for (index, version) in [(at - 1, 1), (at, 2)] {
                history[index].writes.push((9, version));
            }
            history[at].reads.push((0, orders[&0][0]));
            let mut orders = orders;
            orders.insert(9, vec![1, 2]);
            let refusal = check(&history, &orders, RealTime::Counts);
            assert!(matches!(refusal, Err(Violation::Circle(_))), "{refusal:?}");
        }
    }
}
