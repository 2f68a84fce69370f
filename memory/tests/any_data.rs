//! No data makes an abstraction panic: any text, number, JSON, vector, time to live and bound is
//! taken and comes back as it went, or is refused with a typed error.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use terrace_memory::budget::{TokenBudgetTracker, Window as Span};
use terrace_memory::cache::{Capacity, LruMemoryCache};
use terrace_memory::channel::{DistributedMemory, From as Begin};
use terrace_memory::compressed::CompressedMemory;
use terrace_memory::conversation::{Message, Role, SessionMemoryStore, Window};
use terrace_memory::embed::{Embedder, HashingEmbedder};
use terrace_memory::event::EventDrivenStateManager;
use terrace_memory::retention::Retention;
use terrace_memory::session::{MemoryKey, MemoryStore, Scope};
use terrace_memory::state::SessionStateManager;
use terrace_memory::store::{Clock, MemStore, Millis, Store, Ttl};
use terrace_memory::tokens::Vocabulary;
use terrace_memory::vector::{Filter, VectorEntry, VectorMemory, VectorOptions};
use terrace_memory::workflow::{StatefulMemory, Transitions};
use terrace_memory::{Error, Json};

fn store() -> Arc<dyn Store> {
    Arc::new(MemStore::with_clock(Clock::manual(Millis(1_800_000_000_000))))
}

/// Mostly short, sometimes above every limit, with whatever characters there are.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => ".{0,20}",
        2 => "\\PC*",
        1 => "[a\\x00/%\\n]{0,12}",
        1 => (".", 0_usize..3000).prop_map(|(text, count)| text.repeat(count)),
    ]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any_text().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            vec((any_text(), inner), 0..4).prop_map(Json::from_iter),
        ]
    })
}

fn any_ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        Just(Ttl::Keep),
        Just(Ttl::Never),
        any::<Duration>().prop_map(Ttl::For),
        any::<u64>().prop_map(|ms| Ttl::Until(Millis(ms))),
    ]
}

/// Refused as the docs say: what a caller did, not what a store broke.
fn refused<T>(result: &Result<T, Error>) -> bool {
    matches!(
        result,
        Err(Error::Limit { .. }
            | Error::Invalid(_)
            | Error::InvalidVector(_)
            | Error::Dimension { .. }
            | Error::UnknownState(_)
            | Error::InvalidTransition { .. }
            | Error::BudgetExceeded { .. }
            | Error::Conflict { .. })
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn session_values_of_any_kind_come_back(
        user in any_text(),
        component in any_text(),
        custom in any_text(),
        value in any_json(),
        ttl in any_ttl(),
    ) {
        let memory = MemoryStore::new(store());
        let key = MemoryKey::new(Scope::Custom(custom), &user, &component);
        let set = memory.set(&key, &value, ttl);
        if set.is_ok() {
            prop_assert_eq!(memory.get::<Json>(&key).unwrap(), Some(value));
            prop_assert!(memory.delete(&key).unwrap());
        } else {
            prop_assert!(refused(&set), "{:?}", set);
        }
        prop_assert_eq!(memory.get::<Json>(&key).unwrap_or(None), None);
    }

    #[test]
    fn conversations_of_any_text_have_windows_of_any_size(
        texts in vec((any_text(), 0_u8..4, proptest::option::of(any_text())), 1..12),
        max_tokens in prop_oneof![0_u64..100, any::<u64>()],
        chars in prop_oneof![0_usize..10, any::<usize>()],
        kept in prop_oneof![0_u64..10, any::<u64>()],
    ) {
        let sessions = SessionMemoryStore::new(store(), Arc::new(Vocabulary::O200k));
        let talk = sessions.get_or_create("s").unwrap();
        let mut said = 0;
        for (text, role, group) in &texts {
            let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
            let mut message = Message::new(roles[usize::from(*role)], text.clone());
            if let Some(group) = group {
                message = message.group(group);
            }
            let appended = talk.append(message);
            prop_assert!(appended.is_ok() || refused(&appended), "{:?}", appended);
            said += u64::from(appended.is_ok());
        }
        prop_assert_eq!(talk.len().unwrap(), said);
        let view = talk.window(Window::tokens(max_tokens)).unwrap();
        prop_assert!(view.tokens <= max_tokens || view.truncated || said == 0);
        let summary = talk.context_summary(chars, chars);
        prop_assert!(summary.is_ok() || refused(&summary), "{:?}", summary);
        talk.retain(Retention::count(kept)).unwrap();
        prop_assert!(talk.len().unwrap() <= said);
    }

    #[test]
    fn budgets_take_any_number_and_never_more_than_there_is(
        limit in any::<u64>(),
        uses in vec((any_text(), prop_oneof![0_u64..100, any::<u64>()]), 0..12),
        span in any::<Duration>(),
    ) {
        let made = TokenBudgetTracker::new(store(), "b", limit, Span::Rolling(span));
        let budget = match made {
            Ok(budget) => budget,
            error => {
                prop_assert!(refused(&error));
                return Ok(());
            }
        };
        let mut left = limit;
        for (id, tokens) in uses {
            match budget.record(&id, tokens) {
                Ok(remaining) => {
                    prop_assert!(remaining <= left);
                    left = remaining;
                }
                error => prop_assert!(refused(&error), "{:?}", error),
            }
        }
        prop_assert_eq!(budget.remaining().unwrap(), left);
    }

    #[test]
    fn state_events_and_channels_take_any_json(
        changes in vec((any_text(), any_json()), 0..8),
        source in any_text(),
    ) {
        let store = store();
        let state = SessionStateManager::new(Arc::clone(&store), "s").unwrap();
        let events = EventDrivenStateManager::new(Arc::clone(&store), "s").unwrap();
        let channel = DistributedMemory::<Json>::new(store, "c").unwrap();
        let mut published = Vec::new();
        for (key, value) in changes {
            let set = state.set(&key, &value);
            prop_assert!(set.is_ok() || refused(&set), "{:?}", set);
            if set.is_ok() {
                prop_assert_eq!(state.get(&key).unwrap(), Some(value.clone()));
            }
            let set = events.set(&key, &value, &source, value.clone());
            prop_assert!(set.is_ok() || refused(&set), "{:?}", set);
            channel.publish(&value).unwrap();
            published.push(value);
        }
        let mut document = Vec::new();
        state.export(&mut document).unwrap();
        let copy = SessionStateManager::new(Arc::new(MemStore::new()), "copy").unwrap();
        copy.import(&mut document.as_slice()).unwrap();
        prop_assert_eq!(copy.state().unwrap(), state.state().unwrap());
        let mut reader = channel.subscribe("r", Begin::Start).unwrap();
        for value in published {
            prop_assert_eq!(reader.next(Duration::ZERO).unwrap().unwrap().value, value);
        }
    }

    #[test]
    fn workflows_caches_and_compressed_values_take_any_data(
        names in vec(any_text(), 1..5),
        data in any_json(),
        bytes in vec(any::<u8>(), 0..2000),
        ttl in proptest::option::of(any::<Duration>()),
        capacity in prop_oneof![0_usize..4, any::<usize>()],
    ) {
        let table = names.windows(2).fold(Transitions::builder(&names[0]), |table, pair| {
            table.allow(&pair[0], [&pair[1]])
        });
        if let Ok(table) = table.build() {
            let work = StatefulMemory::open(store(), "w", table);
            if let Ok(work) = &work {
                for name in names.iter().skip(1) {
                    let moved = work.transition(name, data.clone());
                    prop_assert!(moved.is_ok() || refused(&moved), "{:?}", moved);
                }
            } else {
                prop_assert!(refused(&work));
            }
        }
        let cache = LruMemoryCache::new(Capacity::Entries(capacity));
        cache.insert(1, bytes.clone(), ttl);
        cache.insert(2, bytes.clone(), ttl);
        prop_assert!(cache.len() <= capacity);
        let pages = CompressedMemory::new(store(), "p").unwrap();
        let put = pages.put_bytes(&names[0], &bytes, Ttl::Never);
        prop_assert!(put.is_ok() || refused(&put), "{:?}", put);
        if put.is_ok() {
            prop_assert_eq!(pages.get_bytes(&names[0]).unwrap(), Some(bytes));
        }
    }

    #[test]
    fn vectors_of_any_numbers_texts_and_metadata_are_kept_or_refused(
        entries in vec((any_text(), vec(any::<f32>(), 3..5), any_json()), 0..8),
        query in vec(any::<f32>(), 3..5),
        field in any_text(),
        wanted in any_json(),
        k in prop_oneof![0_usize..5, any::<usize>()],
    ) {
        let memory = VectorMemory::open(store(), "v", VectorOptions::new(4)).unwrap();
        let mut kept = std::collections::BTreeSet::new();
        for (id, vector, metadata) in entries {
            let entry = VectorEntry::new(&id, &id, vector).metadata(metadata);
            let added = memory.add(entry);
            prop_assert!(added.is_ok() || refused(&added), "{:?}", added);
            if added.is_ok() {
                kept.insert(id);
            }
        }
        prop_assert_eq!(memory.len().unwrap(), kept.len() as u64);
        for filter in [Filter::All, Filter::eq(&field, wanted)] {
            match memory.search(&query, k, &filter) {
                Ok(hits) => prop_assert!(hits.iter().all(|hit| kept.contains(&hit.id))),
                error => prop_assert!(refused(&error), "{:?}", error),
            }
        }
        let embedder = HashingEmbedder::new(4).unwrap();
        prop_assert_eq!(embedder.embed(&[&field]).unwrap()[0].len(), 4);
    }
}

#[test]
fn what_is_larger_than_a_store_takes_is_a_limit_everywhere() {
    let large = "x".repeat(100 << 20);
    let store = store();
    let key = MemoryKey::new(Scope::Global, "", "c");
    let set = MemoryStore::new(Arc::clone(&store)).set(&key, &large, Ttl::Never);
    assert!(matches!(set, Err(Error::Limit { .. })), "{set:?}");
    let vectors = VectorMemory::open(Arc::clone(&store), "v", VectorOptions::new(1)).unwrap();
    let added = vectors.add(VectorEntry::new("a", &large, [1.0]));
    assert!(matches!(added, Err(Error::Limit { .. })), "{added:?}");
    assert_eq!(vectors.len().unwrap(), 0);
    let state = SessionStateManager::new(Arc::clone(&store), "s").unwrap();
    let set = state.set("k", &Json::from(large.clone()));
    assert!(matches!(set, Err(Error::Limit { .. })), "{set:?}");
    let channel = DistributedMemory::<String>::new(store, "c").unwrap();
    let published = channel.publish(&large);
    assert!(matches!(published, Err(Error::Limit { .. })), "{published:?}");
}
