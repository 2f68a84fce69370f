//! Rule: no module of the engine needs itself, by whatever way around.
//! A child may use the words of the folder that holds it; every other way back is a cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::modules;
use crate::tree::{Finding, Tree};

type Edges = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let found = modules(tree);
    let known: BTreeSet<&[String]> = found.iter().map(|(_, module, _)| module.as_slice()).collect();
    let mut edges = Edges::new();
    for (_, module, imports) in &found {
        let targets = edges.entry(module.clone()).or_default();
        for import in imports {
            let longest = (1..=import.target.len()).rev().map(|len| &import.target[..len]);
            if let Some(target) = longest.into_iter().find(|target| known.contains(target))
                && !module.starts_with(target)
            {
                targets.insert(target.to_vec());
            }
        }
    }
    let cyclic = |module: &&Vec<String>| reaches_itself(&edges, module);
    let members: Vec<&Vec<String>> = edges.keys().filter(cyclic).collect();
    let path_of = |module: &Vec<String>| {
        found.iter().find(|(_, other, _)| other == module).map_or("", |(file, ..)| &file.path)
    };
    let text = |module: &Vec<String>| {
        let onward = edges[module].iter().filter(|target| reaches(&edges, target, module));
        let names: Vec<String> = onward.map(|target| target.join("::")).collect();
        format!("needs itself through {}; move what both need down", names.join(", "))
    };
    members.iter().map(|module| Finding::new(path_of(module), 0, text(module))).collect()
}

fn reaches_itself(edges: &Edges, module: &[String]) -> bool {
    edges[module].iter().any(|target| reaches(edges, target, module))
}

fn reaches(edges: &Edges, from: &[String], goal: &[String]) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(module) = open.pop() {
        if module == goal {
            return true;
        }
        if seen.insert(module) {
            open.extend(edges.get(module).into_iter().flatten().map(Vec::as_slice));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_of_three_files_is_caught_and_each_is_named() {
        let tree = Tree::of(&[
            ("engine/src/warm/mod.rs", "mod a; use self::a::A;"),
            ("engine/src/warm/a.rs", "use crate::warm::b::B;"),
            ("engine/src/warm/b.rs", "use super::c::C;"),
            ("engine/src/warm/c.rs", "fn f() { crate::warm::a::g() }"),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        let expected = ["a", "b", "c"].map(|name| format!("engine/src/warm/{name}.rs"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_child_may_use_the_words_of_its_folder() {
        let tree = Tree::of(&[
            ("engine/src/vfs/mod.rs", "pub(crate) mod map; use self::map::Map; trait File {}"),
            ("engine/src/vfs/map.rs", "pub struct Map;"),
            ("engine/src/vfs/os.rs", "use super::File; use super::map::Map;"),
        ]);
        assert_eq!(check(&tree), []);
    }
}
