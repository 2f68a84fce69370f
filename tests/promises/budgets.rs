//! Four times the budgets of data: every key readable, the log within its budget, text at half.

use std::time::Duration;

use terrace::Options;

/// Text with the entropy of source code: words of a small vocabulary and a number.
fn text(i: u32) -> String {
    const WORDS: [&str; 12] = [
        "let", "match", "record", "segment", "archive", "fn", "return", "self", "offset", "write",
        "journal", "index",
    ];
    let mut state = i.wrapping_mul(2_654_435_761) | 1;
    let mut out = String::new();
    while out.len() < 1000 {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out.push_str(WORDS[(state % 12) as usize]);
        out.push(if state.is_multiple_of(7) { '\n' } else { ' ' });
        if state.is_multiple_of(11) {
            out.push_str(&(state % 1000).to_string());
        }
    }
    out
}

#[test]
fn four_times_the_budgets_stay_within_them_and_every_key_is_readable() {
    let (memory, warm) = (8 << 20, 8 << 20);
    let db = Options::new().memory_budget(memory).warm_budget(warm).temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    let count = 64_000;
    let mut raw = 0;
    for i in 0..count {
        let value = text(i);
        raw += value.len();
        ks.put(i.to_be_bytes(), value).unwrap();
        if i % 1000 == 0 {
            let stats = db.stats();
            assert!(stats.warm_bytes <= warm + (2 << 20), "log takes {}", stats.warm_bytes);
        }
    }
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    let ledger = db.ledger();
    assert!(ledger.memory.total <= memory, "{:?}", ledger.memory);
    assert!(ledger.warm.len <= warm);
    let cold_raw = ledger.cold.live + ledger.cold.dead;
    assert!(ledger.cold.len * 2 <= cold_raw, "{} of {cold_raw}", ledger.cold.len);
    assert!(raw > 60 << 20);
    for i in (0..count).rev() {
        assert_eq!(ks.get(i.to_be_bytes()).unwrap().as_deref(), Some(text(i).as_bytes()));
    }
    let audit = db.audit().unwrap();
    assert!(audit.is_exact(), "{audit:#?}");
}

#[test]
fn batches_larger_than_the_warm_budget_go_through_and_nothing_is_refused() {
    let budget = 4 << 20;
    let db = Options::new().memory_budget(8 << 20).warm_budget(budget).temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    for round in 0..6_u32 {
        let mut batch = db.batch();
        for i in 0..10_000_u32 {
            batch.put(&ks, (round * 10_000 + i).to_be_bytes(), text(i));
        }
        batch.commit().unwrap();
    }
    for i in 0..12_u8 {
        ks.put([i], vec![i; 3 << 20]).unwrap();
    }
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    let (stats, ledger) = (db.stats(), db.ledger());
    assert!(stats.user_bytes > 20 * budget, "{stats:?}");
    assert!(ledger.warm.len <= budget, "{} bytes of log, {stats:?}", ledger.warm.len);
    assert!(stats.debt_bytes == 0 && stats.put_waits > 0, "{stats:?}");
    for i in (0..60_000_u32).step_by(97) {
        let expected = text(i % 10_000);
        assert_eq!(ks.get(i.to_be_bytes()).unwrap().as_deref(), Some(expected.as_bytes()));
    }
    assert_eq!(ks.get([11]).unwrap().map(|value| value.len()), Some(3 << 20));
    let audit = db.audit().unwrap();
    assert!(audit.is_exact(), "{audit:#?}");
}
