//! Rule: nothing above 1 MiB is tracked; a history never forgets it.
//! Traces and stores for tests are made by a program, or fetched by who needs them.

use crate::tree::{Finding, Tree};

const LIMIT: u64 = 1 << 20;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let large = tree.files.iter().filter(|file| file.len_bytes > LIMIT);
    let text = |len| format!("{len} bytes, at most {LIMIT}; make it by a program");
    large.map(|file| Finding::new(&file.path, 0, text(file.len_bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_more_than_a_mebibyte_is_caught() {
        let tree = |len| Tree::of(&[("fixtures/store.bin", &"x".repeat(len))]);
        assert_eq!(check(&tree(1 << 20)), []);
        assert_eq!(check(&tree((1 << 20) + 1)).len(), 1);
    }
}
