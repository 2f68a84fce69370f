//! Budgets: never over the limit by any threads, once for one request, windows against a model.

use proptest::prelude::*;

use super::*;
use crate::store::{Clock, EngineStore, MemStore};

const START: Millis = Millis(1_800_000_000_000);

fn budget(limit: u64, window: Window) -> (Clock, TokenBudgetTracker) {
    let clock = Clock::manual(START);
    let store = Arc::new(MemStore::with_clock(clock.clone()));
    (clock, TokenBudgetTracker::new(store, "b", limit, window).unwrap())
}

#[test]
fn one_request_counts_once_and_another_number_is_a_conflict() {
    let (_, budget) = budget(100, Window::Forever);
    assert_eq!(budget.record("a", 30).unwrap(), 70);
    assert_eq!(budget.record("a", 30).unwrap(), 70);
    assert!(matches!(budget.record("a", 31), Err(Error::Conflict { .. })));
    let over = budget.record("b", 71);
    assert!(matches!(over, Err(Error::BudgetExceeded { needed: 71, remaining: 70 })));
    assert_eq!(budget.record("b", 70).unwrap(), 0);
    let usage = budget.usage(Millis(0), 10).unwrap();
    let used: Vec<_> = usage.iter().map(|one| (one.request_id.as_str(), one.tokens)).collect();
    assert_eq!(used, [("a", 30), ("b", 70)]);
    assert_eq!(budget.usage(START.after(Duration::from_secs(1)), 10).unwrap(), []);
}

#[test]
fn reservations_hold_back_settle_refund_and_end_by_themselves() {
    let (clock, budget) = budget(100, Window::Forever);
    let first = budget.reserve("a", 60).unwrap();
    assert_eq!(budget.remaining().unwrap(), 40);
    assert!(matches!(budget.reserve("b", 41), Err(Error::BudgetExceeded { .. })));
    assert_eq!(first.commit(10).unwrap(), 90);
    drop(budget.reserve("c", 50).unwrap());
    assert_eq!(budget.remaining().unwrap(), 90);
    budget.reserve("d", 50).unwrap().refund().unwrap();
    assert!(matches!(budget.reserve("a", 1), Err(Error::Conflict { .. })));
    // A process that died does not drop.
    std::mem::forget(budget.reserve("e", 50).unwrap());
    assert_eq!(budget.remaining().unwrap(), 40);
    clock.advance(Duration::from_mins(10));
    assert_eq!(budget.remaining().unwrap(), 90);
    let more = budget.reserve("f", 5).unwrap();
    assert_eq!(more.commit(200).unwrap(), 0, "what was used was used");
}

#[test]
fn a_second_reservation_of_a_request_takes_the_place_of_the_first() {
    let (_, budget) = budget(100, Window::Forever);
    let first = budget.reserve("a", 60).unwrap();
    let second = budget.reserve("a", 70).unwrap();
    assert_eq!((second.at_most(), budget.remaining().unwrap()), (70, 30));
    drop(first);
    assert_eq!(budget.remaining().unwrap(), 30, "the first no longer holds anything");
    drop(second);
    assert_eq!(budget.remaining().unwrap(), 100);
}

#[test]
fn a_period_of_the_calendar_begins_anew_and_a_changed_window_is_counted_anew() {
    let day = || Window::Calendar(Calendar::new(Period::Day, "UTC").unwrap());
    let (clock, daily) = budget(100, day());
    daily.record("a", 80).unwrap();
    clock.advance(Duration::from_hours(24));
    assert_eq!(daily.remaining().unwrap(), 100);
    daily.record("b", 50).unwrap();
    let open = |window| TokenBudgetTracker::new(Arc::clone(&daily.store), "b", 1000, window);
    assert_eq!(open(Window::Forever).unwrap().remaining().unwrap(), 870);
    let rolling = open(Window::Rolling(Duration::from_hours(48))).unwrap();
    assert_eq!(rolling.remaining().unwrap(), 870);
    rolling.record("c", 1).unwrap();
    assert_eq!(open(day()).unwrap().remaining().unwrap(), 949);
    assert!(open(Window::Rolling(Duration::ZERO)).is_err());
}

#[test]
fn ids_that_cannot_be_are_refused_and_history_is_bounded() {
    let (clock, budget) = budget(u64::MAX, Window::Forever);
    assert!(matches!(budget.record("", 1), Err(Error::Invalid(_))));
    assert!(matches!(budget.record(&"x".repeat(513), 1), Err(Error::Limit { .. })));
    let budget = budget.history(Duration::from_secs(10));
    for i in 0..200 {
        budget.record(&format!("r{i}"), 1).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let kept = budget.usage(Millis(0), 1000).unwrap().len();
    assert!(kept <= 10 + 16, "{kept} are kept");
    assert_eq!(budget.remaining().unwrap(), u64::MAX - 200, "all of them count");
}

#[test]
fn threads_never_use_more_than_there_is_and_everything_there_is() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = Arc::new(EngineStore::new(&db).unwrap());
    let hour = Window::Rolling(Duration::from_hours(1));
    let budget = TokenBudgetTracker::new(store, "b", 1000, hour).unwrap();
    let granted = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (budget, granted) = (&budget, &granted);
            scope.spawn(move || {
                for i in 0..40 {
                    match budget.record(&format!("{thread}/{i}"), 7) {
                        Ok(_) => {
                            granted.fetch_add(7, std::sync::atomic::Ordering::SeqCst);
                        }
                        Err(Error::BudgetExceeded { remaining, .. }) => assert!(remaining < 7),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(granted.into_inner(), 994);
    assert_eq!(budget.remaining().unwrap(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_rolling_window_is_the_sum_of_what_is_in_it(
        steps in proptest::collection::vec((0_u64..3, 1_u64..40, 0_u64..3000), 1..80),
    ) {
        let length = 5000;
        let (clock, budget) = budget(100, Window::Rolling(Duration::from_millis(length)));
        let mut used: Vec<(u64, u64)> = Vec::new();
        for (i, (kind, tokens, pause)) in steps.into_iter().enumerate() {
            clock.advance(Duration::from_millis(pause));
            let now = clock.now().0;
            let inside = used.iter().filter(|(at, _)| at + length > now);
            let left = 100 - inside.map(|(_, tokens)| tokens).sum::<u64>();
            prop_assert_eq!(budget.remaining().unwrap(), left);
            if kind == 0 {
                continue;
            }
            match budget.record(&i.to_string(), tokens) {
                Ok(remaining) => {
                    prop_assert_eq!(remaining, left - tokens);
                    used.push((now, tokens));
                }
                Err(Error::BudgetExceeded { needed, remaining }) => {
                    prop_assert_eq!((needed, remaining), (tokens, left));
                    prop_assert!(tokens > left);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
