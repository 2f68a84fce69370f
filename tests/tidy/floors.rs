//! Rule: a module of the engine imports only from lower floors, by its real path (DESIGN 3).
//! Modules of one group may know each other (no cycle, see `cycles`); groups only look to the left.

use crate::imports::modules;
use crate::tree::{Finding, Tree};

/// Floors from 0; on each floor groups from the left. Modules of one group stand in one list.
const FLOORS: &[&[&[&str]]] = &[
    &[
        &["ids", "error", "canary"],
        &["limits", "shim", "hash", "key"],
        &["vfs"],
        &["value", "options"],
    ],
    &[&["codec"], &["format"]],
    &[&["manifest"], &["ledger"]],
    &[&["hot"], &["warm"], &["cold"]],
    &[&["tiers"], &["tiering"]],
    &[
        &["handle"],
        &["reader"],
        &["iter", "watch"],
        &["keyspace"],
        &["update", "snapshot", "batch", "transaction"],
        &["verify", "checkpoint", "repair", "stats", "leaks"],
        &["statistics"],
        &["db"],
        &["internals"],
    ],
];

/// The floor whose modules never know each other.
const TIERS: usize = 3;

fn place(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, groups)| {
        let group = groups.iter().position(|group| group.contains(&module))?;
        Some((floor, group))
    })
}

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, module, imports) in modules(tree) {
        let Some(own) = module.first() else { continue };
        let Some(own_place) = place(own) else {
            let text = format!("module `{own}` has no floor: enter it in tests/tidy/floors.rs");
            findings.push(Finding::new(&file.path, 0, text));
            continue;
        };
        for import in imports {
            let target = import.target.first().map_or("", String::as_str);
            if let Some(text) = refusal(own, own_place, target) {
                let text = format!("imports `crate::{}`: {text}", import.target.join("::"));
                findings.push(Finding::new(&file.path, import.line, text));
            }
        }
    }
    findings
}

fn refusal(own: &str, (own_floor, own_group): (usize, usize), target: &str) -> Option<String> {
    if target == own {
        return None;
    }
    let Some((floor, group)) = place(target) else {
        return Some("through the root; write the module's real path".to_owned());
    };
    if floor > own_floor {
        return Some(format!("floor {floor} is above floor {own_floor}; return the news instead"));
    }
    if floor == own_floor && floor == TIERS {
        return Some("no tier knows another; `tiers` joins them".to_owned());
    }
    (floor == own_floor && group > own_group)
        .then(|| format!("`{target}` stands to the right of `{own}` on floor {floor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> bool {
        !check(&Tree::of(&[(path, text)])).is_empty()
    }

    #[test]
    fn looking_up_sideways_or_through_the_root_is_caught() {
        assert!(broken("engine/src/warm/active.rs", "use crate::tiering::Plan;"));
        assert!(broken("engine/src/warm/active.rs", "fn f() { crate::cold::go() }"));
        assert!(broken("engine/src/warm/active.rs", "use super::super::hot::HotTier;"));
        assert!(broken("engine/src/warm/active.rs", "use crate::Error;"));
        assert!(broken("engine/src/tiers/mod.rs", "use crate::{ids::Seq, tiering::Plan};"));
        assert!(broken("engine/src/keyspace.rs", "use crate::db::Db;"));
        assert!(broken("engine/src/oddments.rs", "fn f() {}"));
    }

    #[test]
    fn looking_down_and_left_is_fine() {
        assert!(!broken("engine/src/warm/active.rs", "use crate::format::record::RecordHeader;"));
        assert!(!broken("engine/src/tiering/expiry.rs", "use crate::tiers::Tiers;"));
        assert!(!broken("engine/src/snapshot.rs", "use crate::iter::Iter;"));
        assert!(!broken("engine/src/db.rs", "use crate::keyspace::Keyspace;"));
        assert!(!broken("engine/src/lib.rs", "pub use crate::db::Db;"));
    }
}
