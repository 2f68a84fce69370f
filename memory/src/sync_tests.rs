//! Nodes that write, lose frames, fall and come again: in the end all hold the same, and for each
//! key it is what was written last.

use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::{Clock, EngineStore, MemStore, Millis};
use crate::sync::pump::{DIGEST, DRIFT_MAX, RESEND};

const START: Millis = Millis(1_800_000_000_000);
const NAMES: [&str; 3] = ["a", "b", "c"];

type Queue = VecDeque<(String, String, Vec<u8>)>;

/// A network that does what it is told: (from, to, frame).
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<Queue>>);

struct End(Wires, String);

impl Transport for End {
    fn send(&self, peer: &str, frame: &[u8]) -> Result<()> {
        let mut wires = self.0.0.lock();
        wires.push_back((self.1.clone(), peer.to_owned(), frame.to_vec()));
        Ok(())
    }

    fn recv(&self, _wait: Duration) -> Result<Option<(String, Vec<u8>)>> {
        let mut wires = self.0.0.lock();
        let at = wires.iter().position(|(_, to, _)| *to == self.1);
        Ok(at.and_then(|at| wires.remove(at)).map(|(from, _, frame)| (from, frame)))
    }
}

struct Group {
    wires: Wires,
    clocks: Vec<Clock>,
    stores: Vec<Arc<dyn Store>>,
    nodes: Vec<DistributedSessionSync>,
}

impl Group {
    fn new(count: usize) -> Self {
        let wires = Wires::default();
        let clocks: Vec<Clock> = (0..count).map(|_| Clock::manual(START)).collect();
        let store = |clock: &Clock| Arc::new(MemStore::with_clock(clock.clone())) as Arc<dyn Store>;
        let stores: Vec<_> = clocks.iter().map(store).collect();
        let mut this = Self { wires, clocks, stores, nodes: Vec::new() };
        this.nodes = (0..count).map(|i| this.open(i)).collect();
        this
    }

    fn open(&self, i: usize) -> DistributedSessionSync {
        let transport = Arc::new(End(self.wires.clone(), NAMES[i].to_owned()));
        let store = Arc::clone(&self.stores[i]);
        let node = DistributedSessionSync::open(store, "s", NAMES[i], transport).unwrap();
        for (_, peer) in NAMES.iter().enumerate().take(self.clocks.len()).filter(|(j, _)| *j != i) {
            node.add_peer(peer).unwrap();
        }
        node
    }

    fn restart(&mut self, i: usize) {
        self.nodes[i] = self.open(i);
    }

    fn lose_store(&mut self, i: usize) {
        self.stores[i] = Arc::new(MemStore::with_clock(self.clocks[i].clone()));
        self.restart(i);
    }

    fn pass(&self, time: Duration) {
        for clock in &self.clocks {
            clock.advance(time);
        }
    }

    /// Pumps without faults until nothing changes any more.
    fn settle(&self) {
        for round in 0..200 {
            let mut applied = 0;
            for node in &self.nodes {
                applied += node.pump(Duration::ZERO).unwrap().applied;
            }
            let acked = |node: &DistributedSessionSync| {
                let peers = node.peers().unwrap();
                peers.iter().all(|peer| node.unacked(peer).unwrap() == 0)
            };
            let quiet = applied == 0 && self.wires.0.lock().is_empty();
            if round > 3 && quiet && self.nodes.iter().all(acked) {
                return;
            }
            self.pass(RESEND);
        }
        panic!("it does not come to rest");
    }

    fn assert_equal(&self) -> BTreeMap<String, Json> {
        let first = self.nodes[0].all().unwrap();
        for node in &self.nodes {
            assert_eq!(node.all().unwrap(), first, "{node:?}");
            assert_eq!(node.sums().unwrap(), self.nodes[0].sums().unwrap(), "{node:?}");
        }
        first
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(usize, u8),
    Remove(usize, u8),
    Pump(usize),
    Lose(usize),
    Double(usize),
    Swap(usize),
    Restart(usize),
    Pass(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3, 0_u8..6).prop_map(|(node, key)| Step::Set(node, key)),
        2 => (0_usize..3, 0_u8..6).prop_map(|(node, key)| Step::Remove(node, key)),
        6 => (0_usize..3).prop_map(Step::Pump),
        2 => (0_usize..8).prop_map(Step::Lose),
        2 => (0_usize..8).prop_map(Step::Double),
        2 => (0_usize..8).prop_map(Step::Swap),
        1 => (0_usize..3).prop_map(Step::Restart),
        2 => (0_usize..3, 0_u64..500).prop_map(|(node, ms)| Step::Pass(node, ms)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_happens_to_frames_and_nodes_all_hold_what_was_written_last(
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut group = Group::new(3);
        let mut model: BTreeMap<String, (Hlc, Option<Json>)> = BTreeMap::new();
        for (i, step) in steps.into_iter().enumerate() {
            let mut write = |node: usize, key: u8, value: Option<Json>| {
                let key = format!("k{key}");
                let hlc = match &value {
                    Some(value) => group.nodes[node].set(&key, value).unwrap(),
                    None => group.nodes[node].remove(&key).unwrap(),
                };
                let last = model.entry(key).or_insert((Hlc::default(), None));
                if hlc > last.0 {
                    *last = (hlc, value);
                }
            };
            match step {
                Step::Set(node, key) => {
                    write(node, key, Some(if i % 7 == 0 { Json::Null } else { json!(i) }));
                }
                Step::Remove(node, key) => write(node, key, None),
                Step::Pump(node) => drop(group.nodes[node].pump(Duration::ZERO).unwrap()),
                Step::Restart(node) => group.restart(node),
                Step::Pass(node, ms) => drop(group.clocks[node].advance(Duration::from_millis(ms))),
                Step::Lose(at) => drop(group.wires.0.lock().remove(at)),
                Step::Double(at) => {
                    let mut wires = group.wires.0.lock();
                    let frame = wires.get(at).cloned();
                    wires.extend(frame);
                }
                Step::Swap(at) => {
                    let mut wires = group.wires.0.lock();
                    if at + 1 < wires.len() {
                        wires.swap(at, at + 1);
                    }
                }
            }
        }
        group.settle();
        let found = group.assert_equal();
        let live = model.into_iter().filter_map(|(key, (_, value))| Some((key, value?)));
        prop_assert_eq!(found, live.collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn any_frame_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let group = Group::new(2);
        group.wires.0.lock().push_back(("b".into(), "a".into(), bytes));
        let done = group.nodes[0].pump(Duration::ZERO).unwrap();
        prop_assert_eq!((done.received, done.applied), (1, 0));
    }
}

#[test]
fn a_node_that_lost_its_store_gets_everything_back() {
    let mut group = Group::new(3);
    for i in 0..600 {
        group.nodes[i % 3].set(&format!("k{i}"), &json!({ "n": i })).unwrap();
    }
    group.settle();
    assert_eq!(group.assert_equal().len(), 600);
    group.pass(Duration::from_secs(1));
    group.lose_store(1);
    assert_eq!(group.nodes[1].all().unwrap().len(), 0);
    group.pass(DIGEST);
    group.settle();
    assert_eq!(group.assert_equal().len(), 600);
}

#[test]
fn a_store_that_was_set_back_loses_nothing_that_others_have() {
    let directory = tempfile::tempdir().unwrap();
    let mut group = Group::new(2);
    let clock = group.clocks[0].clone();
    let open = |name: &str| {
        let db = terrace::Db::open(directory.path().join(name)).unwrap();
        let store = EngineStore::with(&db, "memory", clock.clone()).unwrap();
        (db, Arc::new(store))
    };
    let (db, store) = open("one");
    group.stores[0] = store;
    group.restart(0);
    group.nodes[0].set("before", &json!(1)).unwrap();
    group.settle();
    db.checkpoint(directory.path().join("two")).unwrap();
    for i in 0..5 {
        group.nodes[0].set(&format!("mine {i}"), &json!(i)).unwrap();
        group.nodes[1].set(&format!("theirs {i}"), &json!(i)).unwrap();
    }
    group.settle();
    group.stores[0] = open("two").1;
    group.restart(0);
    assert_eq!(group.nodes[0].all().unwrap().len(), 1);
    group.nodes[0].set("after", &json!(2)).unwrap();
    group.nodes[1].set("theirs too", &json!(3)).unwrap();
    group.settle();
    group.pass(DIGEST);
    group.settle();
    assert_eq!(group.assert_equal().len(), 13);
}

#[test]
fn strangers_wrong_clocks_and_wrong_arguments_are_refused() {
    let group = Group::new(2);
    let [a, b] = [&group.nodes[0], &group.nodes[1]];
    assert!(!a.add_peer("b").unwrap());
    assert!(matches!(a.add_peer("a"), Err(Error::Invalid(_))));
    assert!(matches!(a.set(&"k".repeat(513), &json!(1)), Err(Error::Limit { .. })));
    assert!(matches!(a.set("k", &json!("x".repeat(2 << 20))), Err(Error::Limit { .. })));
    assert!(matches!(a.unacked("z"), Err(Error::Invalid(_))));
    group.clocks[1].advance(DRIFT_MAX * 2);
    b.set("k", &json!("from the future")).unwrap();
    b.pump(Duration::ZERO).unwrap();
    assert!(a.pump(Duration::ZERO).unwrap().refused > 0);
    assert_eq!(a.get("k").unwrap(), None);
    group.clocks[0].advance(DRIFT_MAX * 2);
    group.settle();
    assert_eq!(a.get("k").unwrap(), Some(json!("from the future")));
    assert!(b.remove_peer("a").unwrap());
    a.set("k", &json!(2)).unwrap();
    a.pump(Duration::ZERO).unwrap();
    assert!(b.pump(Duration::ZERO).unwrap().refused > 0);
}

#[test]
fn tombstones_go_when_all_have_them_and_nothing_comes_back() {
    let group = Group::new(3);
    group.nodes[0].set("k", &json!(1)).unwrap();
    group.settle();
    group.nodes[1].remove("k").unwrap();
    assert_eq!(group.nodes[1].sweep(Duration::ZERO).unwrap(), 0, "nobody has it yet");
    group.settle();
    group.pass(Duration::from_mins(1));
    for node in &group.nodes {
        assert_eq!(node.sweep(Duration::from_secs(10)).unwrap(), 1);
    }
    group.pass(DIGEST);
    group.settle();
    assert_eq!(group.assert_equal(), BTreeMap::new());
}

#[test]
fn two_workers_over_tcp_come_to_hold_the_same() {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let ends = ["a", "b"].map(|name| Arc::new(TcpTransport::bind(name, any).unwrap()));
    ends[0].add_peer("b", ends[1].address()).unwrap();
    ends[1].add_peer("a", ends[0].address()).unwrap();
    let db = terrace::Options::new().temporary().unwrap();
    let engine: Arc<dyn Store> = Arc::new(EngineStore::new(&db).unwrap());
    let memory: Arc<dyn Store> = Arc::new(MemStore::new());
    let open = |store: &Arc<dyn Store>, name: &str, end: &Arc<TcpTransport>| {
        let transport: Arc<dyn Transport> = end.clone();
        DistributedSessionSync::open(Arc::clone(store), "s", name, transport).unwrap()
    };
    let (a, b) = (open(&engine, "a", &ends[0]), open(&memory, "b", &ends[1]));
    a.add_peer("b").unwrap();
    b.add_peer("a").unwrap();
    let worker = b.spawn();
    let mut last = Hlc::default();
    for i in 0..1000 {
        last = a.set(&format!("k{i}"), &json!("x".repeat(1000))).unwrap();
    }
    assert!(a.wait_acked(&last, Duration::from_mins(1)).unwrap());
    assert_eq!(b.all().unwrap().len(), 1000);
    let theirs = b.set("k0", &json!("b was here")).unwrap();
    assert!(theirs > last);
    let watch = Stopwatch::start(Duration::from_mins(1));
    while a.get("k0").unwrap() != Some(json!("b was here")) && watch.left().is_some() {
        a.pump(Duration::from_millis(20)).unwrap();
    }
    assert_eq!(a.get("k0").unwrap(), Some(json!("b was here")));
    worker.stop().unwrap();
}
