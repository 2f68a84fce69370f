//! Deep sizes: what a value holds in memory, with everything that it owns.
//! Sizes are of capacity, not of use; what is shared is counted by everyone who holds it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::conversation::Message;
use crate::session::MemoryKey;

/// Says how many bytes a value takes: itself, and what it owns on the heap.
pub trait MemSize {
    /// Bytes on the heap that this value owns.
    fn heap_size(&self) -> usize;

    /// Bytes of the value and of what it owns on the heap.
    fn mem_size(&self) -> usize {
        size_of_val(self) + self.heap_size()
    }
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl MemSize for $type {
            fn heap_size(&self) -> usize {
                0
            }
        }
    )*};
}

plain!(bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, ());
plain!(std::time::Duration, crate::store::Millis, crate::store::Seq, crate::store::Version);

fn all<'a, T: MemSize + 'a>(items: impl IntoIterator<Item = &'a T>) -> usize {
    items.into_iter().map(MemSize::heap_size).sum()
}

impl MemSize for str {
    fn heap_size(&self) -> usize {
        0
    }
}

impl MemSize for String {
    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl MemSize for bytes::Bytes {
    fn heap_size(&self) -> usize {
        self.len()
    }
}

impl<T: MemSize> MemSize for Option<T> {
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, MemSize::heap_size)
    }
}

impl<T: MemSize + ?Sized> MemSize for Box<T> {
    fn heap_size(&self) -> usize {
        (**self).mem_size()
    }
}

impl<T: MemSize + ?Sized> MemSize for Arc<T> {
    fn heap_size(&self) -> usize {
        2 * size_of::<usize>() + (**self).mem_size()
    }
}

impl<T: MemSize> MemSize for parking_lot::Mutex<T> {
    fn heap_size(&self) -> usize {
        self.lock().heap_size()
    }
}

impl<T: MemSize> MemSize for parking_lot::RwLock<T> {
    fn heap_size(&self) -> usize {
        self.read().heap_size()
    }
}

impl<T: MemSize> MemSize for [T] {
    fn heap_size(&self) -> usize {
        all(self)
    }
}

impl<T: MemSize> MemSize for Vec<T> {
    fn heap_size(&self) -> usize {
        self.capacity() * size_of::<T>() + all(self)
    }
}

impl<T: MemSize> MemSize for VecDeque<T> {
    fn heap_size(&self) -> usize {
        self.capacity() * size_of::<T>() + all(self)
    }
}

impl<K: MemSize, V: MemSize, S> MemSize for HashMap<K, V, S> {
    fn heap_size(&self) -> usize {
        // A byte of control for each place.
        self.capacity() * (size_of::<(K, V)>() + 1) + all(self.keys()) + all(self.values())
    }
}

impl<T: MemSize, S> MemSize for HashSet<T, S> {
    fn heap_size(&self) -> usize {
        self.capacity() * (size_of::<T>() + 1) + all(self)
    }
}

impl<K: MemSize, V: MemSize> MemSize for BTreeMap<K, V> {
    fn heap_size(&self) -> usize {
        // Nodes are two thirds full on average.
        self.len() * size_of::<(K, V)>() * 3 / 2 + all(self.keys()) + all(self.values())
    }
}

impl<T: MemSize> MemSize for BTreeSet<T> {
    fn heap_size(&self) -> usize {
        self.len() * size_of::<T>() * 3 / 2 + all(self)
    }
}

impl<A: MemSize, B: MemSize> MemSize for (A, B) {
    fn heap_size(&self) -> usize {
        self.0.heap_size() + self.1.heap_size()
    }
}

impl MemSize for Value {
    fn heap_size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.heap_size(),
            Self::Array(items) => items.heap_size(),
            Self::Object(map) => {
                map.len() * size_of::<(String, Self)>() * 3 / 2
                    + all(map.keys())
                    + all(map.values())
            }
        }
    }
}

impl MemSize for Message {
    fn heap_size(&self) -> usize {
        let group = self.group.as_ref().map_or(0, |group| group.0.heap_size());
        self.content.heap_size() + group + self.context.heap_size()
    }
}

impl MemSize for MemoryKey {
    fn heap_size(&self) -> usize {
        self.user_id.heap_size() + self.component.heap_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_size_is_deep() {
        let text = "x".repeat(1000);
        assert_eq!(text.mem_size(), size_of::<String>() + text.capacity());
        let list = vec![text.clone(), text.clone()];
        assert!(list.mem_size() >= 2000 + 3 * size_of::<String>());
        let map: BTreeMap<u64, Vec<String>> = BTreeMap::from([(1, list.clone()), (2, list)]);
        assert!(map.mem_size() >= 4000);
        let value = json!({ "a": [text, { "b": "y".repeat(500) }], "c": null, "d": 1.5 });
        assert!(value.mem_size() >= 1500);
        assert!(Arc::new(parking_lot::Mutex::new(vec![0_u8; 64])).mem_size() >= 64);
        assert_eq!(7_u64.mem_size(), 8);
        let message = Message::new(crate::conversation::Role::User, "x".repeat(100)).group("g");
        assert!(message.mem_size() >= 101);
    }
}
