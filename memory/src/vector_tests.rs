//! Vectors against a plain list of them: exact searches, filters, many handles, reopening, the
//! graph with deletes.
#![expect(clippy::cast_precision_loss, reason = "small numbers")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::embed::HashingEmbedder;
use crate::store::{EngineStore, MemStore};

type Rows = std::collections::BTreeMap<String, (Vec<f32>, Json)>;

fn mem() -> Arc<dyn Store> {
    Arc::new(MemStore::new())
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

/// What comparing with every vector gives; exact for small whole numbers.
fn brute(rows: &Rows, query: &[f32], k: usize, filter: &Filter) -> Vec<(String, f32)> {
    let mut all: Vec<(String, f32)> = rows
        .iter()
        .filter(|(_, (_, metadata))| filter.holds(metadata))
        .map(|(id, (vector, _))| {
            (id.clone(), vector.iter().zip(query).map(|(a, b)| a * b).sum::<f32>())
        })
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

/// Numbers that are the same for the same seed, -1 to 1, in clusters.
fn vectors(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut hash = hash::Hash::new();
    hash.add(&seed.to_le_bytes());
    let mut number = || {
        hash.add(&[1]);
        (hash.finish() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let mut centre = vec![0.0; dim];
    (0..count)
        .map(|i| {
            if i % 20 == 0 {
                centre = (0..dim).map(|_| number()).collect();
            }
            centre.iter().map(|part| part + 0.7 * number()).collect()
        })
        .collect()
}

fn any_row() -> impl Strategy<Value = (u8, Vec<f32>, u8)> {
    let part = (-2_i8..3).prop_map(f32::from);
    let vector = proptest::collection::vec(part, 5)
        .prop_filter("zero", |vector| vector.iter().any(|part| *part != 0.0));
    (0_u8..40, vector, 0_u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Puts, replacements and removals; then searches against the plain list, ties and all.
    #[test]
    fn an_exact_search_answers_what_comparing_with_every_vector_answers(
        puts in proptest::collection::vec(any_row(), 0..60),
        removals in proptest::collection::vec(0_u8..40, 0..10),
        query in any_row(),
        k in 0_usize..20,
        kind in 0_u8..4,
    ) {
        let store = mem();
        let options = VectorOptions::new(5).metric(Metric::Dot);
        let memory = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
        let mut rows = Rows::new();
        for (id, vector, kind) in puts {
            let (id, metadata) = (format!("{id:02}"), json!({ "kind": kind }));
            let entry = VectorEntry::new(&id, "text", vector.clone());
            memory.add(entry.metadata(metadata.clone())).unwrap();
            rows.insert(id, (vector, metadata));
        }
        for id in removals {
            let id = format!("{id:02}");
            prop_assert_eq!(memory.remove(&id).unwrap(), rows.remove(&id).is_some());
        }
        let filter = if kind == 3 { Filter::All } else { Filter::eq("kind", kind) };
        let expected = brute(&rows, &query.1, k, &filter);
        for memory in [memory, VectorMemory::open(store, "m", options).unwrap()] {
            let hits = memory.search(&query.1, k, &filter).unwrap();
            let found: Vec<(String, f32)> =
                hits.into_iter().map(|hit| (hit.id, hit.score)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(memory.len().unwrap(), rows.len() as u64);
        }
    }

    #[test]
    fn any_query_is_answered_or_refused(query in proptest::collection::vec(any::<f32>(), 0..6)) {
        let memory = VectorMemory::open(mem(), "m", VectorOptions::new(3)).unwrap();
        memory.add(VectorEntry::new("a", "", [1.0, 2.0, 3.0])).unwrap();
        match memory.search(&query, 2, &Filter::All) {
            Ok(hits) => prop_assert!(hits.len() == 1 && hits[0].score.abs() <= 1.000_001),
            Err(error) => prop_assert!(
                matches!(error, Error::Dimension { .. } | Error::InvalidVector(_)),
                "{error}"
            ),
        }
    }
}

#[test]
fn cosine_compares_directions_and_refuses_what_has_none() {
    let memory = VectorMemory::open(mem(), "m", VectorOptions::new(2)).unwrap();
    for (id, vector) in [("far", [900.0, 900.0]), ("near", [0.001, 0.0]), ("not", [-5.0, 0.0])] {
        memory.add(VectorEntry::new(id, id, vector)).unwrap();
    }
    let hits = memory.search(&[7.0, 0.1], 3, &Filter::All).unwrap();
    assert_eq!(ids(&hits), ["near", "far", "not"]);
    assert!((hits[0].score - 0.9999).abs() < 1e-3 && (hits[1].score - 0.717).abs() < 1e-2);
    for bad in [vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::NEG_INFINITY, 1.0], vec![1.0]] {
        let refused = memory.add(VectorEntry::new("bad", "", bad.clone())).unwrap_err();
        assert!(matches!(refused, Error::InvalidVector(_) | Error::Dimension { .. }), "{refused}");
        assert!(memory.search(&bad, 1, &Filter::All).is_err());
    }
    assert!(memory.get("bad").unwrap().is_none());
    let long = VectorEntry::new(&"x".repeat(1001), "", [1.0, 1.0]);
    assert!(matches!(memory.add(long), Err(Error::Limit { got: 1001, .. })));
    assert!(matches!(memory.add(VectorEntry::new("", "", [1.0, 1.0])), Err(Error::Invalid(_))));
    assert!(matches!(memory.search(&[1.0, 0.0], 10_001, &Filter::All), Err(Error::Limit { .. })));
    assert_eq!(memory.len().unwrap(), 3);
}

#[test]
fn another_dimension_metric_or_model_is_refused() {
    let store = mem();
    let open = |options| VectorMemory::open(Arc::clone(&store), "m", options);
    let embedder = |dim| Arc::new(HashingEmbedder::new(dim).unwrap());
    let with = |options, embedder| {
        VectorMemory::open_with_embedder(Arc::clone(&store), "m", options, embedder)
    };
    with(VectorOptions::new(8), embedder(8)).unwrap();
    assert!(matches!(open(VectorOptions::new(9)), Err(Error::Dimension { expected: 8, got: 9 })));
    let dot = VectorOptions::new(8).metric(Metric::Dot);
    assert!(matches!(open(dot), Err(Error::Invalid(_))));
    assert!(matches!(with(VectorOptions::new(8), embedder(7)), Err(Error::Dimension { .. })));
    struct Other;
    impl Embedder for Other {
        fn dim(&self) -> usize {
            8
        }
        fn model(&self) -> &'static str {
            "other"
        }
        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            Ok(texts.iter().map(|_| vec![1.0; 9]).collect())
        }
    }
    assert!(matches!(with(VectorOptions::new(8), Arc::new(Other)), Err(Error::Invalid(_))));
    for options in [VectorOptions::new(0), VectorOptions::new(8).links(1)] {
        assert!(matches!(open(options), Err(Error::Invalid(_))));
    }
    assert!(matches!(open(VectorOptions::new(1 << 20)), Err(Error::Limit { .. })));
    assert!(matches!(open(VectorOptions::new(8).links(65)), Err(Error::Limit { .. })));
    let plain = open(VectorOptions::new(8)).unwrap();
    assert!(matches!(plain.add_text("a", "text", Json::Null), Err(Error::Invalid(_))));
    let wrong = VectorMemory::open_with_embedder(
        Arc::clone(&store),
        "wrong",
        VectorOptions::new(8),
        Arc::new(Other),
    );
    let wrong = wrong.unwrap();
    let refused = wrong.add_text("a", "text", Json::Null);
    assert!(matches!(refused, Err(Error::Dimension { expected: 8, got: 9 })));
}

#[test]
fn texts_are_found_by_text_with_content_and_metadata() {
    let embedder = Arc::new(HashingEmbedder::new(256).unwrap());
    let memory =
        VectorMemory::open_with_embedder(mem(), "m", VectorOptions::new(256), embedder).unwrap();
    memory.add_text("a", "The cold tier keeps archives", json!({ "tier": 3 })).unwrap();
    memory.add_text("b", "The hot tier keeps records in memory", json!({ "tier": 1 })).unwrap();
    let hits = memory.search_text("where are archives?", 2, &Filter::All).unwrap();
    assert_eq!(ids(&hits), ["a", "b"]);
    assert_eq!(
        (hits[0].content.as_str(), &hits[0].metadata["tier"]),
        ("The cold tier keeps archives", &json!(3))
    );
    let hits = memory.search_text("archives", 2, &Filter::eq("tier", 1)).unwrap();
    assert_eq!(ids(&hits), ["b"]);
    let entry = memory.get("a").unwrap().unwrap();
    assert!(entry.created_at.is_some() && entry.embedding.len() == 256);
    memory.add(VectorEntry { content: "moved".into(), ..entry }).unwrap();
    assert_eq!(memory.search_text("archives", 1, &Filter::All).unwrap()[0].content, "moved");
    assert_eq!(memory.len().unwrap(), 2);
}

#[test]
fn all_of_a_call_is_added_or_nothing() {
    let memory = VectorMemory::open(mem(), "m", VectorOptions::new(1)).unwrap();
    let good = || VectorEntry::new("good", "", [1.0]);
    assert!(memory.add_all(vec![good(), VectorEntry::new("bad", "", [0.0])]).is_err());
    assert!(matches!(memory.add_all(vec![good(), good()]), Err(Error::Invalid(_))));
    assert_eq!(memory.len().unwrap(), 0);
    memory.add_all(Vec::new()).unwrap();
    memory.add_all(vec![good(), VectorEntry::new("other", "", [-1.0])]).unwrap();
    assert_eq!(memory.len().unwrap(), 2);
}

#[test]
fn handles_of_one_memory_see_each_others_changes_also_when_the_log_was_cut() {
    let store = mem();
    let options = VectorOptions::new(2);
    let one = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
    let two = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
    one.add(VectorEntry::new("a", "1", [1.0, 0.0])).unwrap();
    assert_eq!(two.len().unwrap(), 1);
    two.add(VectorEntry::new("a", "2", [0.0, 1.0])).unwrap();
    two.add(VectorEntry::new("b", "", [1.0, 0.0])).unwrap();
    assert_eq!(ids(&one.search(&[0.0, 1.0], 2, &Filter::All).unwrap()), ["a", "b"]);
    assert!(one.remove("b").unwrap() && !two.remove("b").unwrap());
    // More changes than the log keeps.
    for round in 0..3 {
        let entry = |i: i32| VectorEntry::new(&i.to_string(), "", [1.0, i as f32 + round as f32]);
        one.add_all((0..4000).map(entry).collect()).unwrap();
    }
    assert_eq!(two.len().unwrap(), 4001);
    assert!(two.stats().vectors == 4001 && two.mem_size() > 4001 * 32);
}

#[test]
fn threads_add_and_search_at_once_and_nothing_is_missed() {
    let memory = VectorMemory::open(mem(), "m", VectorOptions::new(4).exact_up_to(100)).unwrap();
    let all = vectors(400, 4, 3);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (memory, all) = (memory.clone(), &all);
            scope.spawn(move || {
                for (i, vector) in all.iter().enumerate().skip(part * 100).take(100) {
                    memory.add(VectorEntry::new(&i.to_string(), "", vector.clone())).unwrap();
                    let hits = memory.search_exact(vector, 1, &Filter::All).unwrap();
                    assert!(hits[0].score > 0.999_99);
                }
            });
        }
    });
    assert_eq!(memory.len().unwrap(), 400);
    memory.settle().unwrap();
    assert_eq!(memory.stats().in_graph, 400);
}

/// How many of the ten nearest the graph finds, of all.
fn recall(memory: &VectorMemory, queries: &[Vec<f32>]) -> f64 {
    let mut same = 0;
    for query in queries {
        let exact = memory.search_exact(query, 10, &Filter::All).unwrap();
        let found = memory.search(query, 10, &Filter::All).unwrap();
        same += found.iter().filter(|hit| exact.contains(hit)).count();
    }
    same as f64 / (10 * queries.len()) as f64
}

#[test]
fn the_graph_finds_the_nearest_before_and_after_deletes_and_a_reopening() {
    let db = terrace::Options::new().temporary().unwrap();
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db).unwrap());
    let options = VectorOptions::new(16).exact_up_to(200).links(8).effort_build(48);
    let options = options.effort_search(64);
    let memory = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
    let (all, queries) = (vectors(1500, 16, 1), vectors(40, 16, 2));
    let entry = |i: usize| {
        VectorEntry::new(&i.to_string(), "", all[i].clone()).metadata(json!({ "part": i % 100 }))
    };
    (0..1500).for_each(|i| memory.add(entry(i)).unwrap());
    let stats = memory.stats();
    assert_eq!((stats.vectors, stats.in_graph, stats.pending), (1500, 1500, 0));
    assert!(recall(&memory, &queries) > 0.95, "{}", recall(&memory, &queries));

    (0..300).for_each(|i| assert!(memory.remove(&i.to_string()).unwrap()));
    assert!(recall(&memory, &queries) > 0.95, "{}", recall(&memory, &queries));
    (0..300).for_each(|i| memory.add(entry(i)).unwrap());
    let before = recall(&memory, &queries);
    assert!(before > 0.95, "{before}");

    let filter = Filter::eq("part", 7);
    let hits = memory.search(&queries[0], 20, &filter).unwrap();
    assert_eq!(hits, memory.search_exact(&queries[0], 20, &filter).unwrap());
    assert!(hits.len() == 15 && hits.iter().all(|hit| hit.metadata["part"] == 7));

    memory.settle().unwrap();
    memory.add(entry(0)).unwrap();
    let answers: Vec<_> =
        queries.iter().map(|query| memory.search(query, 10, &Filter::All).unwrap()).collect();
    drop(memory);
    let memory = VectorMemory::open(store, "m", options).unwrap();
    let stats = memory.stats();
    assert_eq!((stats.vectors, stats.in_graph + stats.pending), (1500, 1500));
    assert!((1..50).contains(&stats.pending), "what changed since, and who lost neighbours");
    let same = queries.iter().zip(&answers);
    let same =
        same.filter(|(query, answer)| memory.search(query, 10, &Filter::All).unwrap() == **answer);
    assert!(same.count() >= 38, "what was saved answers as before");
    (0..1460).for_each(|i| assert!(memory.remove(&i.to_string()).unwrap()));
    assert_eq!((memory.len().unwrap(), memory.stats().in_graph), (40, 0), "few need no graph");
}

#[test]
fn a_graph_whose_saved_bytes_are_damaged_is_made_anew() {
    let store = mem();
    let options = VectorOptions::new(4).exact_up_to(20);
    let memory = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
    for (i, vector) in vectors(100, 4, 9).into_iter().enumerate() {
        memory.add(VectorEntry::new(&i.to_string(), "", vector)).unwrap();
    }
    memory.settle().unwrap();
    let ns = Ns::within("vectors.graph", "m").unwrap().without_log();
    let rows = store.scan(&ns, crate::store::Scan::prefix(b"g")).unwrap();
    assert_eq!(rows.len(), 1);
    for cut in (0..rows[0].1.value.len()).step_by(97) {
        let mut bytes = rows[0].1.value.to_vec();
        bytes.truncate(cut);
        bytes.extend_from_slice(&[0xFF; 3]);
        store.put(&ns, rows[0].0.clone(), bytes, Ttl::Never).unwrap();
        let memory = VectorMemory::open(Arc::clone(&store), "m", options).unwrap();
        assert_eq!((memory.stats().in_graph, memory.stats().pending), (0, 100), "{cut}");
        let query = [1.0, 2.0, 3.0, 4.0];
        let exact = memory.search_exact(&query, 5, &Filter::All).unwrap();
        assert_eq!(memory.search(&query, 5, &Filter::All).unwrap(), exact);
    }
}
