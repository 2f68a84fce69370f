//! `compare --growth`: how the cost of an operation grows with the number of keys and the length of
//! values. A size stands where an engine stands in the report.
//! Knows sizes; each process is started as `compare` does.

use crate::compare::{CompareArgs, Session, remove};
use crate::engine::Outcome;
use crate::group::Group;
use crate::peers::{self, Named};
use crate::report::{self, Run};

/// The groups of each size, in one directory.
const GROUPS: &[Group] = &[Group::Load, Group::Reads, Group::Crash, Group::CrashOpen];
/// Operations of a row.
const OPS: u64 = 200_000;
/// Memory for the index of many keys and some to spare.
const CACHE_MIN: u64 = 512 << 20;
const CACHE_A_KEY: u64 = 100;

/// A column: its name, keys in thousands, bytes of a value.
type Size = (&'static str, u64, usize);

const KEYS: &[Size] = &[
    ("10 thousand keys", 10, 100),
    ("100 thousand", 100, 100),
    ("1 million", 1_000, 100),
    ("5 million", 5_000, 100),
    ("20 million", 20_000, 100),
];
/// 256 MiB of values at most, 10,000 records at least but for the longest.
const VALUES: &[Size] = &[
    ("values of 10 B, a million", 1_000, 10),
    ("100 B, a million", 1_000, 100),
    ("1 KiB, 200 thousand", 200, 1 << 10),
    ("10 KiB, 20 thousand", 20, 10 << 10),
    ("100 KiB, 2 thousand", 2, 100 << 10),
    ("1 MiB, a thousand", 1, 1 << 20),
];

/// Measures every size once on each engine, the shortest first.
pub(crate) fn run(args: &CompareArgs) -> Outcome<()> {
    std::fs::create_dir_all(&args.dir)?;
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let only_terrace = vec!["terrace".to_owned()];
    let engines = if args.engines.is_empty() { &only_terrace } else { &args.engines };
    for engine in engines {
        let known = peers::stores().into_iter().find(|(name, _)| name == engine);
        let (_, config) = known.ok_or_else(|| format!("{engine}: this build has none"))?;
        for (name, sizes) in [("keys", KEYS), ("values", VALUES)] {
            let mut session = Session::new(args, scratch.path(), Err("not a row of growth".into()));
            for &size in sizes {
                measure(&mut session, args, engine, size);
                remove(&scratch.path().join(engine));
            }
            let Session { sizes: last, figures, failures, .. } = session;
            let stores: Vec<Named> = sizes.iter().map(|size| (size.0, config)).collect();
            let what = format!("{engine}, by {name}: keys of 24 bytes, {OPS} operations a row.");
            let caches = Vec::new();
            let run = Run { what, sizes: last, stores, caches, figures, failures };
            println!("{}", report::write(&run, &args.out.join(format!("growth-{engine}-{name}")))?);
        }
    }
    Ok(())
}

fn measure(session: &mut Session, args: &CompareArgs, engine: &str, (label, thousand, len): Size) {
    if session.is_late(format_args!("{label}")) {
        return;
    }
    let keys = thousand * 1000;
    session.sizes.keys = keys;
    session.sizes.value_len = len;
    session.sizes.ops = args.ops.unwrap_or(OPS);
    session.sizes.repetitions = 1;
    session.sizes.cache_bytes = CACHE_MIN.max(keys * CACHE_A_KEY);
    for &group in GROUPS {
        session.try_measure(group, engine, label, 0);
    }
}
