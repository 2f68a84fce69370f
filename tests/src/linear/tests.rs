//! Violations that are planted, and histories that are sound: the judge of calls is judged.

use super::*;
use crate::random::Random;

fn call(thread: usize, start: u64, end: u64, action: Action) -> Call {
    Call { thread, key: 7, start, end, action }
}

fn refused(history: &[Call]) -> (Option<u64>, Vec<Action>) {
    match check(history) {
        Err(Violation::NotLinearizable { value, next, .. }) => {
            (value, next.iter().map(|call| call.action).collect())
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_stale_read_is_caught_and_a_concurrent_one_is_not() {
    let stale = call(2, 20, 21, Action::Get(Some(1)));
    let mut history = vec![
        call(0, 0, 1, Action::Put(1)),
        call(1, 2, 10, Action::Put(2)),
        call(2, 3, 4, Action::Get(Some(1))),
        call(2, 5, 6, Action::Get(Some(2))),
    ];
    assert_eq!(check(&history), Ok(()));
    history.push(stale);
    assert_eq!(refused(&history), (Some(2), vec![stale.action]));
    // Not only once the write returned: also once somebody saw it.
    history.pop();
    history.push(call(3, 7, 8, Action::Get(Some(1))));
    assert_eq!(refused(&history), (Some(2), vec![Action::Get(Some(1))]));
}

#[test]
fn a_lost_update_is_caught() {
    let update = |seen, made| Action::Update { seen: Some(seen), made: Made::Put(made) };
    let first = call(0, 0, 1, Action::Put(1));
    let (a, b) = (call(1, 2, 9, update(1, 2)), call(2, 3, 8, update(1, 3)));
    assert!(matches!(check(&[first, a, b]), Err(Violation::NotLinearizable { .. })));
    let b = call(2, 3, 8, update(2, 3));
    assert_eq!(check(&[first, a, b]), Ok(()));
}

#[test]
fn a_value_that_was_never_written_is_caught() {
    let history = [call(0, 0, 5, Action::Put(1)), call(1, 1, 4, Action::Get(Some(3)))];
    assert_eq!(refused(&history).1, [Action::Get(Some(3))]);
    // Nor may it be read before its write began.
    let history = [call(0, 6, 8, Action::Put(3)), call(1, 1, 4, Action::Get(Some(3)))];
    assert_eq!(refused(&history).1, [Action::Get(Some(3))]);
}

#[test]
fn a_swap_that_succeeds_twice_is_caught() {
    let swap = |expected, new| Action::Swap { expected, new: Some(new), swapped: true };
    for expected in [Expected::Absent, Expected::Value(1), Expected::Seq(70)] {
        let mut history = Vec::new();
        if expected != Expected::Absent {
            history.push(call(0, 0, 1, Action::Put(1)));
            history.push(call(0, 2, 3, Action::Info(Some(70))));
        }
        history.push(call(1, 10, 20, swap(expected, 2)));
        assert_eq!(check(&history), Ok(()), "{expected:?}");
        history.push(call(2, 11, 19, swap(expected, 3)));
        assert!(check(&history).is_err(), "{expected:?}");
    }
}

#[test]
fn a_swap_that_refuses_what_is_there_is_caught() {
    let refuse = |expected| Action::Swap { expected, new: None, swapped: false };
    let put = call(0, 0, 1, Action::Put(1));
    assert!(check(&[put, call(1, 2, 3, refuse(Expected::Value(1)))]).is_err());
    assert!(check(&[call(1, 2, 3, refuse(Expected::Absent))]).is_err());
    let info = call(0, 2, 3, Action::Info(Some(9)));
    assert!(check(&[put, info, call(1, 4, 5, refuse(Expected::Seq(9)))]).is_err());
    assert_eq!(check(&[put, info, call(1, 4, 5, refuse(Expected::Seq(8)))]), Ok(()));
}

#[test]
fn a_key_that_comes_back_after_its_delete_is_caught() {
    let history = [
        call(0, 0, 1, Action::Put(1)),
        call(0, 2, 3, Action::Delete(true)),
        call(1, 4, 5, Action::Get(Some(1))),
    ];
    assert_eq!(refused(&history), (None, vec![Action::Get(Some(1))]));
    let twice = [history[0], history[1], call(1, 4, 5, Action::Delete(true))];
    assert!(check(&twice).is_err());
    let cleared = [history[0], call(0, 2, 3, Action::Clear), history[2]];
    assert!(check(&cleared).is_err());
}

#[test]
fn a_sequence_number_that_goes_back_or_changes_without_a_write_is_caught() {
    let put = |at, value| call(0, at, at + 1, Action::Put(value));
    let info = |at, seq| call(1, at, at + 1, Action::Info(Some(seq)));
    assert_eq!(check(&[put(0, 1), info(2, 5), put(4, 2), info(6, 6)]), Ok(()));
    assert!(check(&[put(0, 1), info(2, 5), put(4, 2), info(6, 4)]).is_err());
    assert!(check(&[put(0, 1), info(2, 5), info(4, 6)]).is_err());
    let touch = call(0, 3, 4, Action::Touch(true));
    assert!(check(&[put(0, 1), info(2, 5), touch, info(6, 5)]).is_err());
    assert_eq!(check(&[put(0, 1), info(2, 5), touch, info(6, 6)]), Ok(()));
    // The touch may take effect between the look and the swap, though it began before.
    let touch = call(0, 2, 6, Action::Touch(true));
    let (expected, new) = (Expected::Seq(5), Some(3));
    let swap = call(1, 5, 8, Action::Swap { expected, new, swapped: false });
    assert_eq!(check(&[put(0, 1), touch, info(3, 5), swap, info(9, 6)]), Ok(()));
}

#[test]
fn a_call_that_never_returned_may_have_happened_late_or_not_at_all() {
    let lost = call(0, 0, NEVER, Action::Put(1));
    let read = |at, value| call(1, at, at + 1, Action::Get(value));
    assert_eq!(check(&[lost, read(2, None), read(4, None)]), Ok(()));
    assert_eq!(check(&[lost, read(2, None), read(4, Some(1))]), Ok(()));
    assert!(check(&[lost, read(2, Some(1)), read(4, None)]).is_err());
}

#[test]
fn a_clear_that_would_change_nothing_now_may_still_come_later() {
    let history = [
        call(0, 0, 9, Action::Clear),
        call(1, 1, 2, Action::Get(None)),
        call(1, 3, 4, Action::Put(1)),
        call(1, 5, 6, Action::Get(Some(1))),
        call(1, 10, 11, Action::Get(None)),
    ];
    assert_eq!(check(&history), Ok(()));
    let early = [&[call(0, 0, 2, Action::Clear)], &history[2..]].concat();
    assert!(check(&early).is_err());
}

/// Histories of a register whose calls take effect at moments of their own, with many at one
/// time; then one answer is changed. `(history, index of a read)`.
fn sound(random: &mut Random, calls: u64) -> Vec<Call> {
    let (mut value, mut history) = (None, Vec::new());
    for i in 0..calls {
        // It takes effect at 100 i; it begins and ends at most 400 around it.
        let moment = 1_000 + 100 * i;
        let (start, end) = (moment - 1 - random.below(400), moment + 1 + random.below(400));
        let (start, end) = (start * 64 + i % 64, end * 64 + i % 64);
        let action = match random.below(6) {
            0 => Action::Put(i + 1),
            1 => Action::Delete(value.is_some()),
            2 => Action::Update { seen: value, made: Made::Put(i + 1) },
            3 => Action::Touch(value.is_some()),
            4 if random.chance(20) => Action::Clear,
            _ => Action::Get(value),
        };
        value = match action {
            Action::Put(new) | Action::Update { made: Made::Put(new), .. } => Some(new),
            Action::Delete(_) | Action::Clear => None,
            _ => value,
        };
        history.push(call(0, start, end, action));
    }
    history
}

#[test]
fn histories_that_took_effect_in_order_are_accepted_whatever_overlaps() {
    let mut random = Random::from_environment(5);
    for _ in 0..200 {
        let history = sound(&mut random, 300);
        assert_eq!(check(&history), Ok(()));
    }
}

#[test]
fn an_update_that_saw_what_was_replaced_long_before_is_always_caught() {
    let mut random = Random::from_environment(6);
    for _ in 0..100 {
        let mut history = sound(&mut random, 120);
        let at = random.within(60..120);
        let old = Some(at as u64 - 40);
        history[at].action = Action::Update { seen: old, made: Made::Keep };
        assert!(matches!(check(&history), Err(Violation::NotLinearizable { .. })));
    }
}

#[test]
fn keys_are_judged_apart_and_the_refusal_names_the_key() {
    let mut history = vec![call(0, 0, 1, Action::Put(1))];
    history.push(Call { key: 8, ..call(0, 2, 3, Action::Get(None)) });
    assert_eq!(check(&history), Ok(()));
    history.push(Call { key: 8, ..call(0, 4, 5, Action::Get(Some(1))) });
    let refusal = check(&history).unwrap_err();
    assert!(refusal.to_string().starts_with("key 8 is not linearizable"), "{refusal}");
}
