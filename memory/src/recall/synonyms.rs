//! Words that mean the same to a search, Korean and English: a built-in list and the project's own.
//! Knows words; knows nothing of files or scores.

use std::collections::{BTreeMap, BTreeSet};

use crate::recall::terms::{Word, words};

const BUILT_IN: &str = include_str!("synonyms.md");

/// Groups of words that mean the same. A word may be in several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonyms {
    groups: Vec<Vec<String>>,
    /// Groups by the words, and the stems of the words, in them.
    by_word: BTreeMap<String, BTreeSet<usize>>,
}

impl Default for Synonyms {
    /// The built-in list.
    fn default() -> Self {
        let mut this = Self { groups: Vec::new(), by_word: BTreeMap::new() };
        this.add(BUILT_IN);
        this
    }
}

impl Synonyms {
    /// Adds the groups of a Markdown table: one line a group, words separated by commas. All other
    /// lines, and the table's head, are passed over. A word with spaces counts as one with hyphens.
    pub fn add(&mut self, markdown: &str) {
        let lines: Vec<&str> = markdown.lines().map(str::trim).collect();
        for (i, line) in lines.iter().enumerate() {
            let Some(inner) = line.strip_prefix('|') else { continue };
            let is_rule = |line: &str| {
                line.starts_with('|') && line.chars().all(|letter| "|-: ".contains(letter))
            };
            let is_head = lines.get(i + 1).is_some_and(|next| is_rule(next));
            if is_rule(line) || is_head {
                continue;
            }
            let members: Vec<String> = inner
                .split([',', '|'])
                .map(|word| word.trim().trim_matches('`').to_lowercase())
                .filter(|word| !word.is_empty())
                .map(|word| word.split_whitespace().collect::<Vec<_>>().join("-"))
                .collect();
            if members.len() > 1 {
                self.add_group(members);
            }
        }
    }

    fn add_group(&mut self, members: Vec<String>) {
        let group = self.groups.len();
        for member in &members {
            for word in words(member) {
                if word.whole == *member {
                    self.by_word.entry(word.stem().to_owned()).or_default().insert(group);
                }
            }
            self.by_word.entry(member.clone()).or_default().insert(group);
        }
        self.groups.push(members);
    }

    /// The other words of the groups that this word, or its stem, is in.
    pub(crate) fn of(&self, word: &Word) -> Vec<&str> {
        let exact = self.by_word.get(&word.whole);
        let Some(groups) = exact.or_else(|| self.by_word.get(word.stem())) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for member in groups.iter().filter_map(|group| self.groups.get(*group)).flatten() {
            if *member != word.whole && *member != word.stem() && !found.contains(&member.as_str())
            {
                found.push(member);
            }
        }
        found
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_lead_to_each_other_and_a_project_adds_its_own() {
        let mut list = Synonyms::default();
        assert!(list.len() > 30);
        let one = |list: &Synonyms, text: &str| -> Vec<String> {
            list.of(&words(text)[0]).into_iter().map(str::to_owned).collect()
        };
        // "in parallel" with a particle.
        let parallel = "\u{bcd1}\u{b82c}\u{b85c}";
        assert!(one(&list, parallel).contains(&"pm-worker".to_owned()));
        assert!(one(&list, "Orchestrator").contains(&"\u{bcd1}\u{b82c}".to_owned()));
        assert!(one(&list, "hooks").contains(&"\u{d6c5}".to_owned()));
        assert_eq!(one(&list, "author"), Vec::<String>::new());
        list.add("| words |\n|---|\n| quux, big thing |\n| alone |\ntext | a, b |\n");
        assert_eq!(one(&list, "quux"), ["big-thing"]);
        assert_eq!(one(&list, "words"), Vec::<String>::new());
    }
}
