//! Session memory: typed values by scope, user and component, each with a TTL of its own.
//! Knows keys and types; knows nothing of how a store keeps them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::keys;
use crate::store::{Batch, Bytes, Ns, Scan, Store, StoreExt, Ttl, Version, retry};

/// How long a context of [`MemoryStore::save_user_context`] lives.
const CONTEXT_TTL: Duration = Duration::from_hours(1);
/// Its component.
const CONTEXT: &str = "context";

/// Whom a memory is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One session.
    Session,
    /// One user, in all sessions.
    User,
    /// One project.
    Project,
    /// Everybody.
    Global,
    /// A scope of the program's own.
    Custom(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::User => f.write_str("user"),
            Self::Project => f.write_str("project"),
            Self::Global => f.write_str("global"),
            Self::Custom(name) => write!(f, "custom/{name}"),
        }
    }
}

impl From<&str> for Scope {
    /// The scope of this name; any other name is a scope of the program's own.
    fn from(text: &str) -> Self {
        match text {
            "session" => Self::Session,
            "user" => Self::User,
            "project" => Self::Project,
            "global" => Self::Global,
            other => Self::Custom(other.strip_prefix("custom/").unwrap_or(other).to_owned()),
        }
    }
}

/// What a value is stored under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemoryKey {
    /// Whom it is for.
    pub scope: Scope,
    /// Which user, session or project; may be empty.
    pub user_id: String,
    /// Which part of the program it belongs to.
    pub component: String,
}

impl MemoryKey {
    /// The key of these parts.
    pub fn new(scope: Scope, user_id: &str, component: &str) -> Self {
        Self { scope, user_id: user_id.to_owned(), component: component.to_owned() }
    }

    fn encode(&self) -> Bytes {
        let scope = self.scope.to_string();
        keys::join(&[scope.as_bytes(), self.user_id.as_bytes(), self.component.as_bytes()]).into()
    }

    fn decode(key: &[u8]) -> Result<Self> {
        let (scope, rest) = keys::split_text(key)?;
        let (user_id, rest) = keys::split_text(rest)?;
        let (component, rest) = keys::split_text(rest)?;
        if !rest.is_empty() {
            return Err(Error::corrupt("memory key", "more than three parts"));
        }
        Ok(Self { scope: Scope::from(scope.as_str()), user_id, component })
    }
}

/// Typed values by [`MemoryKey`]. Clones share the store.
///
/// A value that is `null` is there: `Some(None)` for a `T` of `Option`, and not `None`. No part of
/// a key can reach into another scope, whatever it contains.
#[derive(Clone)]
pub struct MemoryStore {
    store: Arc<dyn Store>,
    ns: Ns,
    schema: Schema,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("ns", &self.ns).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// In the namespace `session-memory` of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, ns: Ns::fixed("session-memory"), schema: Schema::default() }
    }

    /// In a namespace of its own, with a schema of the program's.
    pub fn within(store: Arc<dyn Store>, name: &str, schema: Schema) -> Result<Self> {
        Ok(Self { store, ns: Ns::new(name)?.without_log(), schema })
    }

    /// Writes a value.
    ///
    /// Errors: [`Error::Invalid`] for a TTL of zero, [`Error::Limit`] for a key above 1 KiB or a
    /// value above 16 MiB, [`Error::Codec`] for what JSON cannot hold.
    pub fn set<T: Serialize + ?Sized>(
        &self,
        key: &MemoryKey,
        value: &T,
        ttl: Ttl,
    ) -> Result<Version> {
        self.store.put(&self.ns, key.encode(), self.schema.encode(value)?, ttl)
    }

    /// The value, or `None` when it is absent or expired.
    pub fn get<T: DeserializeOwned>(&self, key: &MemoryKey) -> Result<Option<T>> {
        let Some(entry) = self.store.get(&self.ns, &key.encode())? else { return Ok(None) };
        self.schema.decode(&entry.value).map(Some)
    }

    /// Reads, lets `change` decide, writes if nobody was faster, else again; at most 16 times.
    ///
    /// `change` gets the value and returns the new one (`None` deletes) and an answer. It may run
    /// more than once. The deadline stays as it is.
    pub fn update<T: Serialize + DeserializeOwned, R>(
        &self,
        key: &MemoryKey,
        mut change: impl FnMut(Option<T>) -> Result<(Option<T>, R)>,
    ) -> Result<R> {
        let at = key.encode();
        retry(&self.ns, || {
            let found = self.store.get(&self.ns, &at)?;
            let old = found.as_ref().map(|entry| self.schema.decode(&entry.value)).transpose()?;
            let (new, answer) = change(old)?;
            let batch = Batch::new(&self.ns).unchanged(at.clone(), found.as_ref());
            let batch = match new {
                Some(value) => batch.put(at.clone(), self.schema.encode(&value)?, Ttl::Keep),
                None => batch.delete(at.clone()),
            };
            self.store.commit(batch)?;
            Ok(answer)
        })
    }

    /// Gives a value a new deadline; answers whether it was there. An expired one is not.
    pub fn touch(&self, key: &MemoryKey, ttl: Ttl) -> Result<bool> {
        self.store.touch(&self.ns, key.encode(), ttl)
    }

    /// How long the value still lives; `None` when it has no deadline, or is not there.
    pub fn ttl(&self, key: &MemoryKey) -> Result<Option<Duration>> {
        let deadline = self.store.get(&self.ns, &key.encode())?.and_then(|entry| entry.deadline);
        Ok(deadline.map(|deadline| deadline.since(self.store.now())))
    }

    /// Deletes a value; answers whether it was there.
    pub fn delete(&self, key: &MemoryKey) -> Result<bool> {
        self.store.delete(&self.ns, key.encode())
    }

    /// The keys of a scope, or of one user in it, in order, behind `after`, at most `limit`.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn list(
        &self,
        scope: Scope,
        user: Option<&str>,
        after: Option<&MemoryKey>,
        limit: usize,
    ) -> Result<Vec<MemoryKey>> {
        let mut prefix = keys::join(&[scope.to_string().as_bytes()]);
        if let Some(user) = user {
            keys::push(&mut prefix, user.as_bytes());
        }
        let mut scan = Scan::prefix(&prefix).limit(limit);
        if let Some(after) = after.map(MemoryKey::encode).filter(|after| *after >= prefix) {
            scan = scan.after(after);
        }
        let rows = self.store.scan(&self.ns, scan)?;
        rows.iter().map(|(key, _)| MemoryKey::decode(key)).collect()
    }

    /// Writes the context of a user's session; it lives for an hour.
    pub fn save_user_context<T: Serialize + ?Sized>(
        &self,
        user_id: &str,
        context: &T,
    ) -> Result<Version> {
        let key = MemoryKey::new(Scope::Session, user_id, CONTEXT);
        self.set(&key, context, Ttl::For(CONTEXT_TTL))
    }

    /// The context of a user's session, while it lives.
    pub fn load_user_context<T: DeserializeOwned>(&self, user_id: &str) -> Result<Option<T>> {
        self.get(&MemoryKey::new(Scope::Session, user_id, CONTEXT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Clock, MemStore, Millis};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn memory() -> (Clock, MemoryStore) {
        let clock = Clock::manual(Millis(1_800_000_000_000));
        let store = Arc::new(MemStore::with_clock(clock.clone()));
        (clock, MemoryStore::new(store))
    }

    #[test]
    fn stored_null_is_told_from_missing() {
        let (_, memory) = memory();
        let key = MemoryKey::new(Scope::User, "u", "c");
        assert_eq!(memory.get::<Value>(&key).unwrap(), None);
        memory.set(&key, &Value::Null, Ttl::Never).unwrap();
        assert_eq!(memory.get::<Value>(&key).unwrap(), Some(Value::Null));
        assert_eq!(memory.get::<Option<u8>>(&key).unwrap(), Some(None));
        assert!(memory.delete(&key).unwrap());
        assert!(!memory.delete(&key).unwrap());
    }

    #[test]
    fn a_context_lives_for_an_hour_and_what_expired_is_not_refreshed() {
        let (clock, memory) = memory();
        memory.save_user_context("u", &json!({"a": 1})).unwrap();
        let key = MemoryKey::new(Scope::Session, "u", "context");
        assert_eq!(memory.ttl(&key).unwrap(), Some(Duration::from_hours(1)));
        clock.advance(Duration::from_mins(30));
        assert!(memory.touch(&key, Ttl::For(Duration::from_hours(1))).unwrap());
        memory
            .update(&key, |old: Option<Value>| {
                let mut new = old.unwrap_or_default();
                new["b"] = json!(2);
                Ok((Some(new), ()))
            })
            .unwrap();
        clock.advance(Duration::from_mins(59));
        let read: Value = memory.load_user_context("u").unwrap().unwrap();
        assert_eq!(read, json!({"a": 1, "b": 2}));
        clock.advance(Duration::from_mins(1));
        assert_eq!(memory.load_user_context::<Value>("u").unwrap(), None);
        assert!(!memory.touch(&key, Ttl::Never).unwrap());
        assert_eq!(memory.ttl(&key).unwrap(), None);
        assert_eq!(memory.list(Scope::Session, None, None, 10).unwrap(), []);
        let zero = memory.set(&key, &1, Ttl::For(Duration::ZERO));
        assert!(matches!(zero, Err(Error::Invalid(_))));
    }

    #[test]
    fn updates_of_threads_are_all_there() {
        let db = terrace::Options::new().temporary().unwrap();
        let store = Arc::new(crate::store::EngineStore::new(&db).unwrap());
        let memory = MemoryStore::new(store);
        let key = MemoryKey::new(Scope::Global, "", "count");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let add = |old: Option<u64>| Ok((Some(old.unwrap_or(0) + 1), ()));
                        memory.update(&key, add).unwrap();
                    }
                });
            }
        });
        assert_eq!(memory.get::<u64>(&key).unwrap(), Some(800));
        memory.update(&key, |_: Option<u64>| Ok((None, ()))).unwrap();
        assert_eq!(memory.get::<u64>(&key).unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_list_has_the_keys_of_its_scope_and_user_and_no_other(
            parts in proptest::collection::btree_set(
                ("[a\0/]{0,2}", "[a\0/]{0,2}", "[ab]{0,2}"),
                0..12,
            ),
        ) {
            let (_, memory) = memory();
            let mut all = Vec::new();
            for (scope, user, component) in parts {
                let key = MemoryKey::new(Scope::Custom(scope), &user, &component);
                memory.set(&key, &1, Ttl::Never).unwrap();
                all.push(key);
            }
            for wanted in &all {
                let same = |key: &&MemoryKey| key.scope == wanted.scope;
                let of_scope: Vec<_> = all.iter().filter(same).cloned().collect();
                let scope = || wanted.scope.clone();
                prop_assert_eq!(&memory.list(scope(), None, None, 100).unwrap(), &of_scope);
                let same = |key: &&MemoryKey| key.user_id == wanted.user_id;
                let of_user: Vec<_> = of_scope.iter().filter(same).cloned().collect();
                let user = Some(wanted.user_id.as_str());
                prop_assert_eq!(&memory.list(scope(), user, None, 100).unwrap(), &of_user);
                let after = of_user.iter().position(|key| key == wanted).unwrap() + 1;
                let rest = memory.list(scope(), user, Some(wanted), 100).unwrap();
                prop_assert_eq!(&rest[..], &of_user[after..]);
            }
        }
    }
}
