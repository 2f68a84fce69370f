//! How frames travel: the trait, and queues between nodes of one process.
//! Knows names of nodes and bytes. Frames may be lost, doubled, reordered; nothing else is asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Stopwatch;
use crate::error::{Error, Result};

/// Frames that wait for one node; more are refused.
const QUEUE_MAX: usize = 1024;

/// Carries frames between nodes. What is sent may be lost, doubled or reordered; it must not be
/// changed, and the name of the sender must be true.
pub trait Transport: Send + Sync {
    /// Sends a frame to a peer, or gives up soon. An error is a lost frame, nothing more.
    fn send(&self, peer: &str, frame: &[u8]) -> Result<()>;

    /// The next frame and who sent it; `None` when none came for so long.
    fn recv(&self, wait: Duration) -> Result<Option<(String, Vec<u8>)>>;
}

type Queue = VecDeque<(String, Vec<u8>)>;

#[derive(Default)]
struct Shared {
    queues: Mutex<HashMap<String, Queue>>,
    arrived: Condvar,
}

/// A network in one process: bounded queues. Clones are the same network.
#[derive(Clone, Default)]
pub struct LocalNetwork {
    shared: Arc<Shared>,
}

impl fmt::Debug for LocalNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalNetwork({} nodes)", self.shared.queues.lock().len())
    }
}

impl LocalNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The end of this node. Frames wait for it from now on, up to 1024.
    pub fn join(&self, node: &str) -> LocalTransport {
        self.shared.queues.lock().entry(node.to_owned()).or_default();
        LocalTransport { network: self.clone(), node: node.to_owned() }
    }
}

/// One node's end of a [`LocalNetwork`].
#[derive(Debug, Clone)]
pub struct LocalTransport {
    network: LocalNetwork,
    node: String,
}

impl Transport for LocalTransport {
    fn send(&self, peer: &str, frame: &[u8]) -> Result<()> {
        let mut queues = self.network.shared.queues.lock();
        let queue = queues.get_mut(peer).ok_or(Error::Invalid("no such node in the network"))?;
        Error::check_limit("frames that wait", queue.len() + 1, QUEUE_MAX as u64)?;
        queue.push_back((self.node.clone(), frame.to_vec()));
        self.network.shared.arrived.notify_all();
        Ok(())
    }

    fn recv(&self, wait: Duration) -> Result<Option<(String, Vec<u8>)>> {
        let watch = Stopwatch::start(wait);
        let mut queues = self.network.shared.queues.lock();
        loop {
            if let Some(frame) = queues.get_mut(&self.node).and_then(VecDeque::pop_front) {
                return Ok(Some(frame));
            }
            let Some(left) = watch.left() else { return Ok(None) };
            self.network.shared.arrived.wait_for(&mut queues, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_bounded_and_a_wait_ends() {
        let network = LocalNetwork::new();
        let (a, b) = (network.join("a"), network.join("b"));
        assert_eq!(b.recv(Duration::from_millis(5)).unwrap(), None);
        for _ in 0..QUEUE_MAX {
            a.send("b", b"x").unwrap();
        }
        assert!(matches!(a.send("b", b"x"), Err(Error::Limit { .. })));
        assert!(matches!(a.send("c", b"x"), Err(Error::Invalid(_))));
        assert_eq!(b.recv(Duration::ZERO).unwrap(), Some(("a".into(), b"x".to_vec())));
    }
}
