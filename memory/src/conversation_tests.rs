//! Conversations: windows against a plain model, handles that share, retention, deletion, kills.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::retention::Retention;
use crate::store::{Clock, EngineStore, MemStore};

/// Counts bytes: cheap, and easy to foresee.
struct Bytes1;

impl TokenCounter for Bytes1 {
    fn count(&self, text: &str) -> usize {
        text.len()
    }

    fn id(&self) -> &'static str {
        "bytes"
    }
}

/// Counts two for each byte.
struct Bytes2;

impl TokenCounter for Bytes2 {
    fn count(&self, text: &str) -> usize {
        2 * text.len()
    }

    fn id(&self) -> &'static str {
        "two each"
    }
}

fn sessions() -> (Clock, SessionMemoryStore) {
    let clock = Clock::manual(Millis(1_800_000_000_000));
    let store = Arc::new(MemStore::with_clock(clock.clone()));
    (clock, SessionMemoryStore::new(store, Arc::new(Bytes1)))
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.content.as_str()).collect()
}

#[test]
fn the_newest_message_is_shown_and_flagged_when_it_alone_is_over() {
    let (_, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    assert_eq!(talk.window(Window::default()).unwrap().messages, []);
    talk.append(Message::new(Role::System, "be brief")).unwrap();
    talk.append(Message::new(Role::User, "hello")).unwrap();
    talk.append(Message::new(Role::User, "x".repeat(100))).unwrap();
    let view = talk.window(Window::tokens(50)).unwrap();
    assert_eq!(texts(&view.messages), ["be brief", &"x".repeat(100)]);
    assert_eq!((view.tokens, view.dropped, view.truncated), (108, 1, true));
    let view = talk.window(Window::tokens(113)).unwrap();
    assert_eq!((view.tokens, view.dropped, view.truncated), (113, 0, false));
    assert_eq!(talk.len().unwrap(), 3, "a window deletes nothing");
}

#[test]
fn calls_and_results_stay_together_and_results_without_a_call_are_refused() {
    let (_, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    let tool = || Message::new(Role::Tool, "result");
    assert!(matches!(talk.append(tool()), Err(Error::Invalid(_))));
    talk.append(Message::new(Role::System, "sys")).unwrap();
    assert!(matches!(talk.append(tool()), Err(Error::Invalid(_))));
    let call = Message::new(Role::Assistant, "call").context(json!({ "tool": "search" }));
    talk.append_all(&[Message::new(Role::User, "ask"), call, tool(), tool()]).unwrap();
    let shown = |window| texts(&talk.window(window).unwrap().messages).join(" ");
    assert_eq!(shown(Window::messages(2)), "sys call result result");
    assert_eq!(shown(Window::messages(5)), "sys ask call result result");
    let unpinned = Window { pin_system: false, ..Window::messages(3) };
    assert_eq!(shown(unpinned), "call result result");
    let turn = |text| Message::new(Role::User, text).group("t");
    talk.append_all(&[turn("a"), turn("b"), turn("c")]).unwrap();
    assert_eq!(shown(Window::messages(2)), "sys a b c");
}

#[test]
fn handles_share_and_threads_lose_nothing() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = Arc::new(EngineStore::new(&db).unwrap());
    let sessions = SessionMemoryStore::new(store, Arc::new(Bytes1));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sessions = &sessions;
            scope.spawn(move || {
                let talk = sessions.get_or_create("s").unwrap();
                for i in 0..50 {
                    talk.append(Message::new(Role::User, format!("{thread}/{i}"))).unwrap();
                }
            });
        }
    });
    let talk = sessions.get_or_create("s").unwrap();
    let all = talk.messages(Seq(1), 1000).unwrap();
    let seqs: Vec<u64> = all.iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    let mut said: Vec<_> = all.iter().map(|(_, message)| message.content.clone()).collect();
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 200);
    assert_eq!(talk.tokens().unwrap(), said.iter().map(|text| text.len() as u64).sum::<u64>());
}

#[test]
fn a_deleted_session_stays_deleted_and_a_new_one_begins_empty() {
    let (_, sessions) = sessions();
    let old = sessions.get_or_create("s").unwrap();
    old.append(Message::new(Role::User, "secret")).unwrap();
    assert!(sessions.delete("s").unwrap());
    assert!(!sessions.delete("s").unwrap());
    let late = old.append(Message::new(Role::User, "late"));
    assert!(matches!(late, Err(Error::Conflict { .. })));
    assert_eq!(sessions.list(None, 10).unwrap(), []);
    let new = sessions.get_or_create("s").unwrap();
    assert!(new.is_empty().unwrap());
    let late = old.append(Message::new(Role::User, "late"));
    assert!(matches!(late, Err(Error::Conflict { .. })), "the old handle is of the old session");
    new.append(Message::new(Role::User, "hi")).unwrap();
    assert_eq!(sessions.list(None, 10).unwrap().len(), 1);
}

#[test]
fn an_idle_session_ends_and_a_sweep_clears_it_away() {
    let (clock, sessions) = sessions();
    let sessions = sessions.idle_ttl(Duration::from_mins(10));
    for id in ["a", "b", "c"] {
        sessions.get_or_create(id).unwrap().append(Message::new(Role::User, "x")).unwrap();
    }
    clock.advance(Duration::from_mins(6));
    let b = sessions.get_or_create("b").unwrap();
    b.append(Message::new(Role::User, "y")).unwrap();
    clock.advance(Duration::from_mins(6));
    let ids = |sessions: &SessionMemoryStore| -> Vec<String> {
        sessions.list(None, 10).unwrap().into_iter().map(|info| info.id).collect()
    };
    assert_eq!(ids(&sessions), ["b"]);
    assert_eq!(sessions.sweep(None, 2).unwrap(), (1, Some("b".to_owned())));
    assert_eq!(sessions.sweep(Some("b"), 2).unwrap(), (1, None));
    let rows = sessions.store.scan(&sessions.ns("a").unwrap(), Scan::all()).unwrap();
    assert_eq!(rows, [], "nothing is left of it");
    assert_eq!(sessions.get_or_create("b").unwrap().len().unwrap(), 2);
    assert_eq!(sessions.list(Some("b"), 10).unwrap(), []);
}

#[test]
fn clear_keeps_the_session_and_retention_keeps_whole_groups_and_system_messages() {
    let (clock, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    talk.append(Message::new(Role::System, "sys")).unwrap();
    for i in 0..10 {
        let turn = format!("t{i}");
        let ask = Message::new(Role::User, format!("ask {i}")).group(turn.clone());
        let answer = Message::new(Role::Assistant, format!("say {i}")).group(turn);
        talk.append_all(&[ask, answer]).unwrap();
        clock.advance(Duration::from_mins(1));
    }
    assert_eq!(talk.retain(Retention::count(12)).unwrap(), 10, "five turns");
    assert_eq!(talk.len().unwrap(), 11);
    assert_eq!(talk.retain(Retention::age(Duration::from_secs(150))).unwrap(), 6);
    let left = texts_of(&talk);
    assert_eq!(left, ["sys", "ask 8", "say 8", "ask 9", "say 9"]);
    assert_eq!(talk.tokens().unwrap(), 3 + 4 * 5);
    assert_eq!(talk.retain(Retention::size(1)).unwrap(), 2, "the newest group stays");
    let view = talk.window(Window::default()).unwrap();
    assert_eq!(texts(&view.messages), ["sys", "ask 9", "say 9"]);
    assert_eq!(view.tokens, 13);
    talk.clear().unwrap();
    assert!(talk.is_empty().unwrap());
    assert_eq!(talk.append(Message::new(Role::User, "again")).unwrap(), Seq(22));
    assert_eq!(texts_of(&talk), ["again"]);
}

fn texts_of(talk: &ConversationMemory) -> Vec<String> {
    let all = talk.messages(Seq(0), 1000).unwrap();
    all.into_iter().map(|(_, message)| message.content).collect()
}

#[test]
fn a_summary_cuts_where_people_see_a_character_end() {
    let (_, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    talk.append(Message::new(Role::User, "not shown")).unwrap();
    talk.append(Message::new(Role::User, "\u{d55c}\u{ae00}e\u{301}!")).unwrap();
    talk.append(Message::new(Role::Assistant, format!("{family}{family}"))).unwrap();
    let expected = format!("user: \u{d55c}\u{ae00}e\u{301}\nassistant: {family}{family}");
    assert_eq!(talk.context_summary(2, 3).unwrap(), expected);
    assert_eq!(talk.context_summary(0, 3).unwrap(), "");
    assert_eq!(talk.context_summary(1, 0).unwrap(), "assistant: ");
}

#[test]
fn another_counter_is_refused_until_tokens_are_counted_anew() {
    let (_, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    talk.append(Message::new(Role::System, "12")).unwrap();
    talk.append(Message::new(Role::User, "345")).unwrap();
    let store = Arc::clone(&sessions.store);
    let other = SessionMemoryStore::new(store, Arc::new(Bytes2));
    assert!(matches!(other.get_or_create("s"), Err(Error::Invalid(_))));
    other.recount("s").unwrap();
    let talk = other.get_or_create("s").unwrap();
    assert_eq!(talk.tokens().unwrap(), 10);
    assert_eq!(talk.window(Window::default()).unwrap().tokens, 10);
    assert!(matches!(sessions.get_or_create("s"), Err(Error::Invalid(_))));
}

#[test]
fn a_message_that_is_too_large_is_refused_and_changes_nothing() {
    let (_, sessions) = sessions();
    let talk = sessions.get_or_create("s").unwrap();
    let large = Message::new(Role::User, "x".repeat((16 << 20) + 1));
    assert!(matches!(talk.append(large), Err(Error::Limit { .. })));
    assert!(talk.is_empty().unwrap());
    assert!(matches!(sessions.get_or_create(""), Err(Error::Invalid(_))));
}

#[derive(Debug, Clone)]
struct Said {
    role: Role,
    len: usize,
    group: Option<u8>,
}

fn said() -> impl Strategy<Value = Said> {
    let role = prop_oneof![
        1 => Just(Role::System),
        4 => Just(Role::User),
        4 => Just(Role::Assistant),
        3 => Just(Role::Tool),
    ];
    (role, 0_usize..30, proptest::option::of(0_u8..2)).prop_map(|(role, len, group)| Said {
        role,
        len,
        group,
    })
}

fn check_view(all: &[Message], view: &View, window: Window) -> Result<(), TestCaseError> {
    let tokens = |messages: &[Message]| -> u64 {
        messages.iter().map(|message| message.content.len() as u64).sum()
    };
    prop_assert_eq!(view.tokens, tokens(&view.messages), "tokens are those shown");
    prop_assert_eq!(view.dropped, (all.len() - view.messages.len()) as u64);
    let over = view.tokens > window.max_tokens || view.messages.len() as u64 > window.max_messages;
    prop_assert_eq!(view.truncated, over, "within the window, or flagged");
    prop_assert_eq!(view.messages.last(), all.last(), "the newest is shown");
    let first_seq = view.first.unwrap().0;
    let suffix = &all[usize::try_from(first_seq).unwrap() - 1..];
    let (pinned, shown) = view.messages.split_at(view.messages.len() - suffix.len());
    prop_assert_eq!(shown, suffix, "the newest without a gap");
    let system = |message: &&Message| message.role == Role::System;
    let before = &all[..all.len() - suffix.len()];
    let expected: Vec<_> = before.iter().filter(system).filter(|_| window.pin_system).collect();
    prop_assert_eq!(pinned.iter().collect::<Vec<_>>(), expected, "system messages in front");
    let orphan = shown.iter().find(|message| message.role != Role::System);
    prop_assert!(orphan.is_none_or(|message| message.role != Role::Tool), "no orphan");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_window_is_within_its_bounds_or_flagged_and_keeps_what_it_must(
        history in proptest::collection::vec(said(), 1..60),
        max_messages in 0_u64..40,
        max_tokens in 0_u64..400,
        pin_system in any::<bool>(),
    ) {
        let (_, sessions) = sessions();
        let talk = sessions.get_or_create("s").unwrap();
        let mut all = Vec::new();
        for (i, Said { role, len, group }) in history.into_iter().enumerate() {
            let mut message = Message::new(role, "x".repeat(len)).context(json!(i));
            message.group = group.map(|group| GroupId(group.to_string()));
            message.at = Millis(1);
            if talk.append(message.clone()).is_ok() {
                all.push(message);
            } else {
                prop_assert_eq!(role, Role::Tool);
            }
        }
        let window = Window { max_messages, max_tokens, pin_system };
        let view = talk.window(window).unwrap();
        if all.is_empty() {
            prop_assert_eq!(view.messages, []);
        } else {
            check_view(&all, &view, window)?;
            // One group more would not fit: the largest window that does is shown.
            let wider = Window { max_messages: u64::MAX, max_tokens: u64::MAX, pin_system };
            let whole = talk.window(wider).unwrap();
            prop_assert!(!whole.truncated && view.messages.len() <= whole.messages.len());
        }
    }
}

/// As many histories as asked for, a window of each after every append: the newest messages that a
/// handle keeps are those that are stored.
#[test]
fn no_window_of_many_generated_histories_breaks_a_rule() {
    let asked = std::env::var("TERRACE_WINDOW_HISTORIES").ok();
    let count: u64 = asked.and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let mut random = 0x7E44_ACE5_u64;
    let mut below = |end: u64| {
        // SplitMix64.
        random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    };
    let roles =
        [Role::System, Role::User, Role::User, Role::Assistant, Role::Assistant, Role::Tool];
    let (_, sessions) = sessions();
    for history in 0..count {
        let talk = sessions.get_or_create("s").unwrap();
        let mut all = Vec::new();
        for _ in 0..=below(24) {
            let role = roles[usize::try_from(below(6)).unwrap()];
            let mut message = Message::new(role, "x".repeat(usize::try_from(below(30)).unwrap()));
            message.group = (below(3) == 0).then(|| GroupId(below(2).to_string()));
            message.at = Millis(1);
            if talk.append(message.clone()).is_ok() {
                all.push(message);
            }
            if all.is_empty() || below(4) > 0 {
                continue;
            }
            let (max_messages, max_tokens) = (below(20), below(200));
            let window = Window { max_messages, max_tokens, pin_system: below(2) == 0 };
            let view = talk.window(window).unwrap();
            if let Err(why) = check_view(&all, &view, window) {
                panic!("history {history}: {why}: {all:?} in {window:?}");
            }
        }
        sessions.delete("s").unwrap();
    }
}

#[test]
fn what_a_handle_keeps_follows_every_change_of_another() {
    let (_, sessions) = sessions();
    let (one, two) = (sessions.get_or_create("s").unwrap(), sessions.get_or_create("s").unwrap());
    let shown = |talk: &ConversationMemory| {
        let view = talk.window(Window::default()).unwrap();
        (texts(&view.messages).join(" "), view.tokens)
    };
    let say = |text: &str| two.append(Message::new(Role::User, text)).unwrap();
    say("a");
    assert_eq!(shown(&one), ("a".into(), 1));
    say("b");
    two.append(Message::new(Role::System, "s")).unwrap();
    say("c");
    assert_eq!(shown(&one), ("a b s c".into(), 4));
    two.retain(Retention::count(2)).unwrap();
    assert_eq!(shown(&one), ("s c".into(), 2));
    for i in 0..300 {
        say(&i.to_string());
    }
    assert_eq!(one.last(1).unwrap()[0].1.content, "299");
    assert_eq!(shown(&one), shown(&two));
    two.clear().unwrap();
    assert_eq!(shown(&one), (String::new(), 0));
    say("d");
    assert_eq!(shown(&one), ("d".into(), 1));
}
