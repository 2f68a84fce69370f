//! `compare --limited`: the rows again, where memory is a quarter of the data.
//! Knows sizes and the limit; each process is started as `compare` does, in a cgroup.

use crate::cgroup::Cgroup;
use crate::compare::{CompareArgs, GROUPS, Session, Sizes, remove};
use crate::engine::Outcome;
use crate::group::Group;
use crate::group::reads::LIMITED_VALUE_LEN;
use crate::peers::Named;
use crate::report::{self, Run};

/// 205 MB, so that a quarter holds the process itself.
const KEYS: u64 = 200_000;
/// Operations of a row: most wait for the disk.
const OPS: u64 = 20_000;

/// Texts of the cold rows have a cache of their own size, and the limited row is a part of this.
fn is_measured(group: Group) -> bool {
    !matches!(group, Group::Cold | Group::Limited)
}

/// Measures every group on every engine, once unless told otherwise.
pub(crate) fn run(args: &CompareArgs, stores: Vec<Named>) -> Outcome<()> {
    std::fs::create_dir_all(&args.dir)?;
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let keys = args.keys.unwrap_or(KEYS).max(1000);
    let data = keys * (24 + LIMITED_VALUE_LEN as u64);
    let limit = Cgroup::of_a_quarter(data)?;
    let sizes = Sizes {
        keys,
        value_len: LIMITED_VALUE_LEN,
        ops: args.ops.unwrap_or(OPS).max(1000),
        repetitions: args.repetitions.unwrap_or(1).max(1),
        cache_bytes: limit.cache_bytes(),
    };
    let mut session = Session::new(args, scratch.path(), Ok(limit));
    session.sizes = sizes;
    session.limits_all = true;
    for repetition in 0..sizes.repetitions {
        let wanted = |group: &&Group| is_measured(**group) && args.wants_group(**group);
        for &group in GROUPS.iter().filter(wanted) {
            session.turn(group, &stores, repetition);
        }
        for (name, _) in &stores {
            remove(&scratch.path().join(name));
        }
    }
    let Session { figures, failures, .. } = session;
    let what = format!(
        "Memory limited to a quarter of the data, page cache included: {keys} keys of 24 bytes, \
         values of {LIMITED_VALUE_LEN} bytes, {} operations a row, {} repetitions, caches of {} \
         MiB.",
        sizes.ops,
        sizes.repetitions,
        sizes.cache_bytes >> 20
    );
    let run = Run { what, sizes, stores, caches: Vec::new(), figures, failures };
    println!("{}", report::write(&run, &args.out.join("limited"))?);
    Ok(())
}
