//! The whole archive that `format-spec.md` shows is what the engine writes and reads.

use crate::cold::tests::{Model, get, open, place, write};

const SPEC: &str = include_str!("../../../../format-spec.md");
const HEADING: &str = "### Worked example: an archive";

fn model() -> Model {
    let record = |key: &str, seq, deadline_ms, value: &str| {
        ((1, key.as_bytes().to_vec()), (seq, deadline_ms, value.as_bytes().to_vec()))
    };
    [record("ab", 5, 0, "v"), record("ac", 7, 1_700_000_060_000, "")].into()
}

/// The bytes of the hex dump under the heading: an offset, then pairs of digits.
fn bytes_of_the_spec() -> Vec<u8> {
    let section = SPEC.split_once(HEADING).map_or("", |(_, rest)| rest);
    let dump = section.split("```").nth(1).unwrap_or("");
    let lines = dump.lines().filter_map(|line| line.split_once("  "));
    let pairs = lines.flat_map(|(_, pairs)| pairs.split_whitespace());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn dump(bytes: &[u8]) -> String {
    let rows = bytes.chunks(16).enumerate().map(|(row, chunk)| {
        let pairs: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:08x}  {}\n", row * 16, pairs.join(" "))
    });
    rows.collect()
}

#[test]
fn the_archive_of_the_spec_is_the_one_that_the_engine_writes_and_reads() {
    let place = place();
    let len = write(&place, 1, &model(), None);
    let mut written = vec![0; usize::try_from(len).unwrap()];
    place.dir.open("0000000001.arc").unwrap().read_exact_at(&mut written, 0).unwrap();
    let shown = bytes_of_the_spec();
    assert!(shown == written, "the engine writes:\n{}", dump(&written));
    let copy = self::place();
    copy.dir.create("0000000001.arc").unwrap().write_all_at(&shown, 0).unwrap();
    let archive = open(&copy, 1).unwrap();
    assert_eq!(get(&archive, 1, b"ab").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(get(&archive, 1, b"ac").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(get(&archive, 1, b"ad").unwrap(), None);
}
