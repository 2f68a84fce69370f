//! The transition table of a workflow: which state may follow which, checked when it is built.
//! Knows names; knows nothing of stored states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A checked table of transitions. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transitions {
    table: Arc<Table>,
}

#[derive(Debug, PartialEq, Eq)]
struct Table {
    initial: String,
    allowed: BTreeMap<String, BTreeSet<String>>,
    terminal: BTreeSet<String>,
}

/// Collects transitions; [`TransitionsBuilder::build`] checks them.
#[derive(Debug, Clone)]
#[must_use]
pub struct TransitionsBuilder {
    initial: String,
    allowed: BTreeMap<String, BTreeSet<String>>,
    terminal: BTreeSet<String>,
}

impl Transitions {
    /// A table whose workflows begin in `initial`.
    ///
    /// ```
    /// use terrace_memory::workflow::Transitions;
    ///
    /// let table = Transitions::builder("draft")
    ///     .allow("draft", ["review"])
    ///     .allow("review", ["draft", "done"])
    ///     .terminal("done")
    ///     .build()?;
    /// assert!(table.is_allowed("review", "done"));
    /// assert!(!table.is_allowed("done", "draft"));
    /// # Ok::<(), terrace_memory::Error>(())
    /// ```
    pub fn builder(initial: &str) -> TransitionsBuilder {
        let initial = initial.to_owned();
        TransitionsBuilder { initial, allowed: BTreeMap::new(), terminal: BTreeSet::new() }
    }

    /// Where workflows begin.
    pub fn initial(&self) -> &str {
        &self.table.initial
    }

    /// Whether the table has this state.
    pub fn is_state(&self, name: &str) -> bool {
        self.table.allowed.contains_key(name) || self.table.terminal.contains(name)
    }

    /// Whether workflows end here.
    pub fn is_terminal(&self, name: &str) -> bool {
        self.table.terminal.contains(name)
    }

    /// Whether `to` may follow `from`.
    #[doc(alias = "is_valid_transition")]
    pub fn is_allowed(&self, from: &str, to: &str) -> bool {
        self.table.allowed.get(from).is_some_and(|targets| targets.contains(to))
    }

    /// What may follow `from`, in order of names.
    pub fn targets(&self, from: &str) -> impl Iterator<Item = &str> {
        self.table.allowed.get(from).into_iter().flatten().map(String::as_str)
    }
}

impl TransitionsBuilder {
    /// Lets each of `to` follow `from`.
    pub fn allow<S: AsRef<str>>(mut self, from: &str, to: impl IntoIterator<Item = S>) -> Self {
        let targets = self.allowed.entry(from.to_owned()).or_default();
        targets.extend(to.into_iter().map(|name| name.as_ref().to_owned()));
        self
    }

    /// Lets workflows end in this state.
    pub fn terminal(mut self, name: &str) -> Self {
        self.terminal.insert(name.to_owned());
        self
    }

    /// Checks the table.
    ///
    /// Errors: [`Error::UnknownState`] for a state that is neither left nor terminal, mostly a
    /// name mistyped; [`Error::Invalid`] for a terminal state that is left, a state that nothing
    /// leads to, or an empty name.
    pub fn build(self) -> Result<Transitions> {
        let Self { initial, mut allowed, terminal } = self;
        allowed.retain(|_, targets| !targets.is_empty());
        if terminal.iter().any(|name| allowed.contains_key(name)) {
            return Err(Error::Invalid("a terminal state that is left"));
        }
        let known = |name: &String| allowed.contains_key(name) || terminal.contains(name);
        let (mut reached, mut open) = (BTreeSet::new(), vec![&initial]);
        while let Some(name) = open.pop() {
            if name.is_empty() {
                return Err(Error::Invalid("a state without a name"));
            }
            if !known(name) {
                return Err(Error::UnknownState(name.clone()));
            }
            if reached.insert(name) {
                open.extend(allowed.get(name).into_iter().flatten());
            }
        }
        if allowed.keys().chain(&terminal).any(|name| !reached.contains(name)) {
            return Err(Error::Invalid("a state that nothing leads to"));
        }
        Ok(Transitions { table: Arc::new(Table { initial, allowed, terminal }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_cannot_be_right_is_refused_when_it_is_built() {
        let begin = || Transitions::builder("a").allow("a", ["b"]);
        assert!(begin().terminal("b").build().is_ok());
        assert!(matches!(begin().build(), Err(Error::UnknownState(name)) if name == "b"));
        let left = begin().allow("b", ["a"]).terminal("b").build();
        assert!(matches!(left, Err(Error::Invalid("a terminal state that is left"))));
        let lost = begin().terminal("b").allow("c", ["a"]).build();
        assert!(matches!(lost, Err(Error::Invalid("a state that nothing leads to"))));
        assert!(matches!(Transitions::builder("a").build(), Err(Error::UnknownState(_))));
        assert!(Transitions::builder("a").terminal("a").build().is_ok());
        assert!(Transitions::builder("").terminal("").build().is_err());
    }

    #[test]
    fn the_table_says_what_may_follow() {
        let table = Transitions::builder("a").allow("a", ["b", "a"]).terminal("b").build().unwrap();
        assert_eq!(table.targets("a").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(table.targets("b").count(), 0);
        assert!(table.is_terminal("b") && table.is_state("a") && !table.is_state("c"));
        assert_eq!(table.initial(), "a");
    }
}
