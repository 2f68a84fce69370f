//! Channels between agents: a durable, ordered log of values, consumers with names and cursors.
//! At least once: what was not acknowledged comes again. Knows items and cursors; knows no network.
//!
//! Rows of a channel: `i` and a number, an item; `h`, the number of the last one; `c` and a name,
//! where a consumer is; `d`, a name and a number, an item that a consumer could not handle.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Stopwatch;
use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::keys;
use crate::retention::{Retention, retain_rows};
use crate::store::{
    Batch, Entry, LogRetention, Millis, Ns, Scan, Seq, Store, StoreExt, Ttl, retry,
};
pub use crate::worker::Worker;

const HEADER: &[u8] = b"h";
/// Items that are read at a time.
const PAGE: usize = 64;
/// How often an item is handed to a worker before it is put aside.
const ATTEMPTS_MAX: u32 = 5;
/// How long a worker waits before it looks whether it is to end.
const WORKER_WAIT: Duration = Duration::from_millis(200);

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Where it was; at the start when it is new.
    Stored,
    /// At the first item that is kept.
    Start,
    /// Behind the last item.
    Now,
    /// At this item.
    At(Seq),
}

/// One item of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<T> {
    /// Its place: 1 for the first, without gaps.
    pub seq: Seq,
    /// When it was published.
    pub at: Millis,
    /// What was published.
    pub value: T,
}

#[derive(Serialize, Deserialize)]
struct Item<T> {
    at: Millis,
    value: T,
}

/// A channel of values of one type. Clones, and all handles of one name, share it.
pub struct DistributedMemory<T> {
    store: Arc<dyn Store>,
    ns: Ns,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for DistributedMemory<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), ns: self.ns.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for DistributedMemory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistributedMemory({:?})", self.ns)
    }
}

impl<T: Serialize + DeserializeOwned> DistributedMemory<T> {
    /// The channel of this name.
    pub fn new(store: Arc<dyn Store>, channel: &str) -> Result<Self> {
        // The change log only wakes those who wait: little of it is kept.
        let log = LogRetention { count: 64, ..LogRetention::default() };
        let ns = Ns::within("channel", channel)?.with_log(log);
        Ok(Self { store, ns, of: PhantomData })
    }

    /// Appends a value; answers its place.
    #[doc(alias = "publish_state")]
    pub fn publish(&self, value: &T) -> Result<Seq> {
        let item = Schema::default().encode(&Item { at: self.store.now(), value })?;
        retry(&self.ns, || {
            let entry = self.store.get(&self.ns, HEADER)?;
            let seq = Seq(entry.as_ref().map_or(Ok(0), |entry| keys::number(&entry.value))? + 1);
            let batch = Batch::new(&self.ns)
                .unchanged(HEADER, entry.as_ref())
                .put(HEADER, seq.0.to_be_bytes().to_vec(), Ttl::Never)
                .put(item_key(seq), item.clone(), Ttl::Never);
            self.store.commit(batch)?;
            Ok(seq)
        })
    }

    /// The last item's place; 0 for an empty channel.
    pub fn last(&self) -> Result<Seq> {
        let entry = self.store.get(&self.ns, HEADER)?;
        Ok(Seq(entry.map_or(Ok(0), |entry| keys::number(&entry.value))?))
    }

    /// A consumer of this name. What it acknowledges is remembered under its name; two at a time
    /// under one name both get every item.
    #[doc(alias = "subscribe_to_state")]
    pub fn subscribe(&self, consumer: &str, from: From) -> Result<Subscription<T>> {
        let cursor = cursor_key(consumer);
        let acked = match from {
            From::Start => Seq(0),
            From::At(seq) => Seq(seq.0.saturating_sub(1)),
            From::Now => self.last()?,
            From::Stored => {
                let entry = self.store.get(&self.ns, &cursor)?;
                Seq(entry.map_or(Ok(0), |entry| keys::number(&entry.value))?)
            }
        };
        let (channel, consumer) = (self.clone(), consumer.to_owned());
        let ready = VecDeque::new();
        Ok(Subscription { channel, consumer, cursor, next: acked, acked, ready })
    }

    /// Items that a consumer's worker could not handle, the oldest first.
    pub fn put_aside(&self, consumer: &str, limit: usize) -> Result<Vec<Event<T>>> {
        let rows =
            self.store.scan(&self.ns, Scan::prefix(&aside_key(consumer, None)).limit(limit))?;
        rows.iter().map(|(key, entry)| event(key, entry)).collect()
    }

    /// Deletes the oldest items until the rest is within the bounds, whether or not somebody still
    /// wants them; answers how many went. A consumer that was further back goes on with the first
    /// that is kept. `size` is bytes as stored.
    pub fn retain(&self, retention: Retention) -> Result<u64> {
        let read = |stored: &[u8]| {
            Schema::default().decode(stored).map(|row: Item<serde::de::IgnoredAny>| (row.at, None))
        };
        retain_rows(&*self.store, &self.ns, b"i", retention, read)
    }
}

/// A consumer's place in a channel.
pub struct Subscription<T> {
    channel: DistributedMemory<T>,
    consumer: String,
    cursor: Vec<u8>,
    /// The last item that was handed out, and the last that was acknowledged.
    next: Seq,
    acked: Seq,
    ready: VecDeque<Event<T>>,
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, consumer, acked, .. } = self;
        write!(f, "Subscription({consumer:?} of {channel:?}, acknowledged {})", acked.0)
    }
}

impl<T: Serialize + DeserializeOwned> Subscription<T> {
    /// The next item, or `None` when none came for so long. It comes again, to the next
    /// subscription of this name, until it is acknowledged.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Event<T>>> {
        let watch = Stopwatch::start(wait);
        // Changes behind this one wake a wait, also those of cursors.
        let mut changed = self.last_change()?;
        loop {
            if self.ready.is_empty() {
                self.fill()?;
            }
            if let Some(event) = self.ready.pop_front() {
                self.next = event.seq;
                return Ok(Some(event));
            }
            let Some(left) = watch.left() else { return Ok(None) };
            let (store, ns) = (&self.channel.store, &self.channel.ns);
            match store.changes(ns, changed, PAGE, left) {
                Ok(changes) => changed = changes.last().map_or(changed, |last| last.seq),
                // Trimmed since: then something was published.
                Err(Error::Truncated { first }) => changed = Seq(first.0.saturating_sub(1)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The last change that published something.
    fn last_change(&self) -> Result<Seq> {
        let entry = self.channel.store.get(&self.channel.ns, HEADER)?;
        Ok(Seq(entry.map_or(0, |entry| entry.version.0 + 1)))
    }

    fn fill(&mut self) -> Result<()> {
        let scan = Scan::prefix(b"i").after(item_key(self.next)).limit(PAGE);
        for (key, entry) in self.channel.store.scan(&self.channel.ns, scan)? {
            self.ready.push_back(event(&key, &entry)?);
        }
        Ok(())
    }

    /// Everything up to this item is done: it does not come again under this name.
    pub fn ack(&mut self, seq: Seq) -> Result<()> {
        if seq <= self.acked {
            return Ok(());
        }
        if seq > self.next {
            return Err(Error::Invalid("an item that was not handed out"));
        }
        let (store, ns) = (&self.channel.store, &self.channel.ns);
        store.put(ns, self.cursor.clone(), seq.0.to_be_bytes().to_vec(), Ttl::Never)?;
        self.acked = seq;
        Ok(())
    }

    /// The last item that was acknowledged.
    pub fn acked(&self) -> Seq {
        self.acked
    }

    /// Puts an item aside that cannot be handled, and acknowledges it in the same commit.
    fn set_aside(&mut self, seq: Seq) -> Result<()> {
        let (store, ns) = (&self.channel.store, &self.channel.ns);
        let mut batch =
            Batch::new(ns).put(self.cursor.clone(), seq.0.to_be_bytes().to_vec(), Ttl::Never);
        if let Some(entry) = store.get(ns, &item_key(seq))? {
            batch = batch.put(aside_key(&self.consumer, Some(seq)), entry.value, Ttl::Never);
        }
        store.commit(batch)?;
        self.acked = seq;
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Subscription<T> {
    /// Hands every item to `handle` in a thread of its own and acknowledges what it did. An item
    /// that fails, or panics, five times in a row is put aside, and the worker goes on.
    pub fn spawn(
        mut self,
        mut handle: impl FnMut(Event<T>) -> Result<()> + Send + 'static,
    ) -> Worker {
        Worker::spawn(move |end| {
            while !end.load(Ordering::Acquire) {
                let Some(event) = self.next(WORKER_WAIT)? else { continue };
                let done = (0..ATTEMPTS_MAX).any(|_| {
                    let one = event.clone();
                    matches!(catch_unwind(AssertUnwindSafe(|| handle(one))), Ok(Ok(())))
                });
                if done { self.ack(event.seq)? } else { self.set_aside(event.seq)? }
            }
            Ok(())
        })
    }
}

fn event<T: DeserializeOwned>(key: &[u8], entry: &Entry) -> Result<Event<T>> {
    let tail = key.len().checked_sub(8).and_then(|at| key.get(at..)).unwrap_or(&[]);
    let Item { at, value } = Schema::default().decode(&entry.value)?;
    Ok(Event { seq: Seq(keys::number(tail)?), at, value })
}

fn item_key(seq: Seq) -> Vec<u8> {
    [&b"i"[..], &seq.0.to_be_bytes()].concat()
}

fn cursor_key(consumer: &str) -> Vec<u8> {
    [b"c", consumer.as_bytes()].concat()
}

fn aside_key(consumer: &str, seq: Option<Seq>) -> Vec<u8> {
    let mut key = [&b"d"[..], &keys::join(&[consumer.as_bytes()])].concat();
    if let Some(seq) = seq {
        key.extend_from_slice(&seq.0.to_be_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::store::{EngineStore, MemStore};

    const LONG: Duration = Duration::from_secs(20);

    fn values(subscription: &mut Subscription<u64>) -> Vec<u64> {
        let next = || subscription.next(Duration::ZERO).unwrap().map(|event| event.value);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let db = terrace::Db::open(directory.path().join("data")).unwrap();
            let store = Arc::new(EngineStore::new(&db).unwrap());
            DistributedMemory::<u64>::new(store, "c").unwrap()
        };
        let channel = open();
        for i in 1..=200 {
            assert_eq!(channel.publish(&i).unwrap(), Seq(i));
        }
        let mut one = channel.subscribe("one", From::Stored).unwrap();
        assert_eq!(values(&mut one), (1..=200).collect::<Vec<_>>());
        one.ack(Seq(150)).unwrap();
        one.ack(Seq(100)).unwrap();
        assert!(matches!(one.ack(Seq(201)), Err(Error::Invalid(_))));
        drop((one, channel));
        let channel = open();
        let mut one = channel.subscribe("one", From::Stored).unwrap();
        assert_eq!(values(&mut one), (151..=200).collect::<Vec<_>>());
        let from = |from| values(&mut channel.subscribe("two", from).unwrap()).len();
        assert_eq!((from(From::Start), from(From::Now), from(From::At(Seq(199)))), (200, 0, 2));
        assert_eq!(channel.retain(Retention::count(10)).unwrap(), 190);
        assert_eq!(from(From::Stored), 10);
        assert_eq!(channel.publish(&201).unwrap(), Seq(201));
    }

    #[test]
    fn who_waits_is_woken_and_publishers_of_threads_lose_nothing() {
        let channel = DistributedMemory::<u64>::new(Arc::new(MemStore::new()), "c").unwrap();
        let mut consumer = channel.subscribe("one", From::Now).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let channel = &channel;
                scope.spawn(move || {
                    for i in 0..50 {
                        channel.publish(&(thread * 100 + i)).unwrap();
                    }
                });
            }
            let mut got: Vec<Event<u64>> = Vec::new();
            while got.len() < 200 {
                let event = consumer.next(LONG).unwrap().unwrap();
                consumer.ack(event.seq).unwrap();
                got.push(event);
            }
            let seqs: Vec<u64> = got.iter().map(|event| event.seq.0).collect();
            assert_eq!(seqs, (1..=200).collect::<Vec<_>>(), "each once and in order");
        });
        assert_eq!(consumer.next(Duration::from_millis(5)).unwrap(), None);
        assert_eq!((consumer.acked(), channel.last().unwrap()), (Seq(200), Seq(200)));
    }

    #[test]
    fn a_worker_survives_errors_and_panics_and_puts_poison_aside() {
        let channel = DistributedMemory::<u64>::new(Arc::new(MemStore::new()), "c").unwrap();
        let done = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&done);
        let subscription = channel.subscribe("w", From::Stored).unwrap();
        let worker = subscription.spawn(move |event| match event.value {
            2 => Err(Error::Timeout),
            3 => panic!("handler"),
            value => {
                log.lock().push(value);
                Ok(())
            }
        });
        for i in 1..=5 {
            channel.publish(&i).unwrap();
        }
        let watch = Stopwatch::start(LONG);
        while done.lock().len() < 3 && watch.left().is_some() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        worker.stop().unwrap();
        assert_eq!(*done.lock(), [1, 4, 5]);
        let aside = channel.put_aside("w", 10).unwrap();
        assert_eq!(aside.iter().map(|event| event.value).collect::<Vec<_>>(), [2, 3]);
        let mut rest = channel.subscribe("w", From::Stored).unwrap();
        assert_eq!(values(&mut rest), [0_u64; 0], "what was put aside is acknowledged");
    }
}
