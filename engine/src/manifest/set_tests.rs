//! Every state of a file, its name, and what ends an index image.

use super::*;

fn set() -> FileSet {
    let facts = StoreFacts { store: [1; 16], hash_seed: [2; 16], created_ms: 3, archive_dir: None };
    FileSet::new(facts)
}

fn sealed(first_seq: u64) -> SealedFacts {
    let (kind, trailer_crc) = (SegmentKind::Survivor, 7);
    SealedFacts { kind, len: 9, first_seq: Seq(first_seq), last_seq: Seq(4), trailer_crc }
}

#[test]
fn each_state_has_a_name_a_place_and_a_doom_and_comes_back_from_a_snapshot() {
    let states = [
        (Op::OpenSegment { id: 1, kind: 1 }, "seg", FileState::DoomedSegment),
        (Op::OpenSegment { id: 2, kind: 3 }, "seg", FileState::DoomedSegment),
        (Op::DraftSegment { id: 3 }, "seg", FileState::DoomedSegment),
        (seal_op(4, &sealed(1)), "seg", FileState::DoomedSegment),
        (Op::DraftArchive { id: 5 }, "arc", FileState::DoomedArchive),
        (Op::ListArchive { id: 6, len: 70 }, "arc", FileState::DoomedArchive),
        (Op::DraftBits { id: 7 }, "bit", FileState::DoomedBits),
        (Op::ListBits { id: 8, len: 60 }, "bit", FileState::DoomedBits),
        (Op::DraftImage { id: 9 }, "idx", FileState::DoomedImage),
        (Op::ListImage { id: 10, len: 50, crc: 6 }, "idx", FileState::DoomedImage),
    ];
    let mut all = set();
    for (id, (op, ending, doomed)) in (1..).zip(&states) {
        let mut one = set();
        one.apply(std::slice::from_ref(op)).unwrap();
        all.apply(std::slice::from_ref(op)).unwrap();
        let state = one.files[&id];
        assert_eq!(all.files[&id], state);
        assert_eq!(state.name(id), format!("{id:010}.{ending}"));
        assert_eq!(state.is_archive(), *ending == "arc", "{op:?}");
        assert_eq!(one.next_file, id + 1);
        let mut copy = set();
        copy.apply(&one.snapshot()).unwrap();
        assert_eq!(copy, one);
        one.apply(&[Op::Doom { id }]).unwrap();
        assert_eq!((one.files[&id], one.files[&id].name(id)), (*doomed, state.name(id)));
        let mut copy = set();
        copy.apply(&one.snapshot()).unwrap();
        assert_eq!(copy, one);
        one.apply(&[Op::Doom { id }, Op::Gone { id }]).unwrap();
        assert!(one.files.is_empty() && one.next_file == id + 1);
    }
    assert_eq!((all.bits(), all.image()), (Some(8), Some((10, 50, 6))));
    let mut copy = set();
    copy.apply(&all.snapshot()).unwrap();
    assert_eq!(copy, all);
}

#[test]
fn an_image_ends_with_what_counts_and_outlives_the_rest() {
    let with_image = || {
        let mut set = set();
        let files = [seal_op(1, &sealed(1)), Op::ListArchive { id: 2, len: 70 }];
        set.apply(&files).unwrap();
        set.apply(&[Op::DraftArchive { id: 3 }, Op::ListBits { id: 4, len: 60 }]).unwrap();
        set.apply(&[Op::DraftImage { id: 5 }, Op::ListImage { id: 5, len: 9, crc: 8 }]).unwrap();
        assert_eq!(set.image(), Some((5, 9, 8)));
        set
    };
    let drop = Op::DropKeyspace { name: "a".into(), incarnation: 1, seq: 1 };
    for ends in [seal_op(6, &sealed(2)), Op::ListArchive { id: 7, len: 1 }, drop] {
        let mut set = with_image();
        set.apply(std::slice::from_ref(&ends)).unwrap();
        assert_eq!(set.image(), None, "{ends:?}");
    }
    for id in [1, 2] {
        let mut set = with_image();
        set.apply(&[Op::Doom { id }]).unwrap();
        assert_eq!(set.image(), None, "file {id}");
    }
    let (next_file, next_incarnation) = (40, 50);
    let counters = Op::Counters { next_file, next_incarnation };
    let gone = [Op::Doom { id: 3 }, Op::Gone { id: 3 }];
    for spares in [&gone[..], &[counters], &[Op::ClockAt { ms: 5 }], &[Op::DurableAt { seq: 5 }]] {
        let mut set = with_image();
        set.apply(spares).unwrap();
        assert_eq!(set.image(), Some((5, 9, 8)), "{spares:?}");
    }
}

#[test]
fn numbers_only_rise_and_the_facts_are_one_stores() {
    let mut set = set();
    let counters = |next_file, next_incarnation| Op::Counters { next_file, next_incarnation };
    set.apply(&[counters(40, 50), counters(30, 60), Op::DraftSegment { id: 12 }]).unwrap();
    assert_eq!((set.next_file, set.next_incarnation), (40, 60));
    set.apply(&[Op::JournalAt { seq: 9 }, Op::JournalAt { seq: 8 }]).unwrap();
    set.apply(&[Op::DurableAt { seq: 7 }, Op::DurableAt { seq: 6 }]).unwrap();
    set.apply(&[Op::ClockAt { ms: 5 }, Op::ClockAt { ms: 4 }]).unwrap();
    assert_eq!((set.journal_at, set.durable_at, set.clock_ms), (Seq(9), Seq(7), 5));
    set.apply(&[Op::Facts(set.facts.clone())]).unwrap();
    let other = StoreFacts { created_ms: 4, ..set.facts.clone() };
    assert_eq!(set.apply(&[Op::Facts(other)]).unwrap_err().field, "facts");
    assert_eq!(set.apply(&[Op::OpenSegment { id: 1, kind: 9 }]).unwrap_err().field, "segment kind");
}
