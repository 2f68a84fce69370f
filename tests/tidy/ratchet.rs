//! A list of known exceptions that may only shrink.
//! Knows names and numbers; knows nothing of what is counted.

use crate::tree::Finding;

/// One known exception: where, and how much at most.
pub(crate) type Known = (&'static str, usize);

/// One thing over the limit, as measured.
pub(crate) struct Measured {
    pub path: String,
    pub line: usize,
    /// What the list calls it.
    pub name: String,
    pub count: usize,
}

/// What is over `limit` and not in `list`, what grew, and entries that are no longer needed.
pub(crate) fn compare(
    all: &[Measured],
    limit: usize,
    list: &[Known],
    list_path: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in all.iter().filter(|one| one.count > limit) {
        let known = list.iter().find(|(name, _)| *name == one.name);
        let most = known.map_or(limit, |(_, count)| *count);
        if one.count > most {
            let text = format!("{} lines in `{}`, at most {most}", one.count, one.name);
            findings.push(Finding::new(&one.path, one.line, text));
        }
    }
    for (name, count) in list {
        let now = all.iter().filter(|one| one.name == *name).map(|one| one.count).max();
        let now = now.unwrap_or(0);
        if now < *count {
            let text = if now > limit {
                format!("`{name}` has shrunk to {now}: lower its entry from {count}")
            } else {
                format!("`{name}` no longer needs its entry: remove it")
            };
            findings.push(Finding::new(list_path, 0, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(count: usize, list: &[Known]) -> usize {
        let one = Measured { path: "a.rs".into(), line: 1, name: "a".into(), count };
        compare(&[one], 60, list, "list.rs").len()
    }

    #[test]
    fn an_entry_may_neither_grow_nor_outlive_its_reason() {
        assert_eq!(verdict(60, &[]), 0);
        assert_eq!(verdict(61, &[]), 1);
        assert_eq!(verdict(70, &[("a", 70)]), 0);
        assert_eq!(verdict(71, &[("a", 70)]), 1);
        assert_eq!(verdict(69, &[("a", 70)]), 1);
        assert_eq!(verdict(60, &[("a", 70)]), 1);
        assert_eq!(verdict(60, &[("gone", 70)]), 1);
    }
}
