//! Filters over metadata, and signatures: one word a row that says what it cannot hold.
//! Pure functions over JSON; knows no rows.
//!
//! A signature has two bits for each pair of a field and its value, at the top of the metadata. A
//! row whose signature lacks a bit that a filter asks for is not read. 64 bits with ten pairs let
//! one row in twelve through that should not pass; those are read and judged.

use std::ops::Bound;

use crate::codec::Json;
use crate::vector::hash::Hash;

/// Which rows a search may answer with, by their metadata.
///
/// A field is the name of a member of the metadata, or, when it begins with `/`, a JSON pointer
/// (RFC 6901). Numbers are equal when their values are, whole or not. A missing field equals
/// nothing, not even null, and is in no range.
///
/// ```
/// use terrace_memory::vector::Filter;
/// use serde_json::json;
///
/// let filter = Filter::eq("lang", "en").and(Filter::at_least("year", 2020.0));
/// assert!(filter.holds(&json!({ "lang": "en", "year": 2024 })));
/// assert!(!filter.holds(&json!({ "lang": "en" })));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Filter {
    /// Every row.
    #[default]
    All,
    /// The field is there and holds this value.
    Eq(String, Json),
    /// The field is there and holds one of these values.
    In(String, Vec<Json>),
    /// The field is a number between these.
    Range(String, Bound<f64>, Bound<f64>),
    /// The field is there.
    Exists(String),
    /// All of these hold.
    And(Vec<Self>),
    /// One of these holds.
    Or(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
}

impl Filter {
    /// The field holds this value.
    pub fn eq(field: &str, value: impl Into<Json>) -> Self {
        Self::Eq(field.to_owned(), value.into())
    }

    /// The field holds one of these values.
    pub fn any_of(field: &str, values: impl IntoIterator<Item = impl Into<Json>>) -> Self {
        Self::In(field.to_owned(), values.into_iter().map(Into::into).collect())
    }

    /// The field is a number of at least so much.
    pub fn at_least(field: &str, least: f64) -> Self {
        Self::Range(field.to_owned(), Bound::Included(least), Bound::Unbounded)
    }

    /// The field is a number below this.
    pub fn below(field: &str, end: f64) -> Self {
        Self::Range(field.to_owned(), Bound::Unbounded, Bound::Excluded(end))
    }

    /// The field is there.
    pub fn exists(field: &str) -> Self {
        Self::Exists(field.to_owned())
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All => other,
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            first => Self::And(vec![first, other]),
        }
    }

    /// This does not hold.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether the metadata satisfies it.
    pub fn holds(&self, metadata: &Json) -> bool {
        match self {
            Self::All => true,
            Self::Eq(field, value) => at(metadata, field).is_some_and(|found| same(found, value)),
            Self::In(field, values) => at(metadata, field)
                .is_some_and(|found| values.iter().any(|value| same(found, value))),
            Self::Range(field, from, to) => {
                let found = at(metadata, field).and_then(Json::as_f64);
                found.is_some_and(|found| std::ops::RangeBounds::contains(&(*from, *to), &found))
            }
            Self::Exists(field) => at(metadata, field).is_some(),
            Self::And(all) => all.iter().all(|filter| filter.holds(metadata)),
            Self::Or(any) => any.iter().any(|filter| filter.holds(metadata)),
            Self::Not(filter) => !filter.holds(metadata),
        }
    }

    /// The bits that the signature of every row has that satisfies it.
    pub(super) fn signature(&self) -> u64 {
        match self {
            Self::Eq(field, value) if !field.starts_with('/') => pair(field, value),
            Self::In(field, values) if !field.starts_with('/') => {
                let pairs = values.iter().map(|value| pair(field, value));
                pairs.reduce(|a, b| a & b).unwrap_or(u64::MAX)
            }
            Self::And(all) => all.iter().map(Self::signature).fold(0, |a, b| a | b),
            Self::Or(any) => any.iter().map(Self::signature).reduce(|a, b| a & b).unwrap_or(0),
            _ => 0,
        }
    }
}

/// The signature of a row with this metadata.
pub(super) fn signature(metadata: &Json) -> u64 {
    let members = metadata.as_object().into_iter().flatten();
    members.map(|(field, value)| pair(field, value)).fold(0, |a, b| a | b)
}

fn at<'m>(metadata: &'m Json, field: &str) -> Option<&'m Json> {
    if field.starts_with('/') { metadata.pointer(field) } else { metadata.get(field) }
}

/// Equal values; numbers by what they are worth.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        _ => a == b,
    }
}

/// Two bits. Arrays and objects have none: what is in them is compared when they are read.
fn pair(field: &str, value: &Json) -> u64 {
    let mut hash = Hash::new();
    hash.add(field.as_bytes());
    match value {
        Json::Null => hash.add(b"n"),
        Json::Bool(value) => hash.add(if *value { b"t" } else { b"f" }),
        Json::Number(number) => {
            // Both zeros are one.
            let value = number.as_f64().unwrap_or(0.0) + 0.0;
            hash.add(&value.to_le_bytes());
        }
        Json::String(text) => hash.add(text.as_bytes()),
        Json::Array(_) | Json::Object(_) => return 0,
    }
    let mixed = hash.finish();
    1 << (mixed >> 58) | 1 << (mixed >> 52 & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_value() -> impl Strategy<Value = Json> {
        prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-3_i64..3).prop_map(Json::from),
            (-3_i32..3).prop_map(|whole| Json::from(f64::from(whole))),
            "[ab]{0,2}".prop_map(Json::from),
            Just(json!([1])),
        ]
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let leaf = prop_oneof![
            Just(Filter::All),
            ("[xyz]", any_value()).prop_map(|(field, value)| Filter::Eq(field, value)),
            ("[xyz]", proptest::collection::vec(any_value(), 0..3))
                .prop_map(|(field, values)| Filter::In(field, values)),
            ("/[xyz]", any_value()).prop_map(|(field, value)| Filter::Eq(field, value)),
            ("[xyz]", -3.0..3.0).prop_map(|(field, least)| Filter::at_least(&field, least)),
            "[xyz]".prop_map(|field| Filter::exists(&field)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
                inner.prop_map(Filter::negated),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_row_that_satisfies_a_filter_has_the_bits_that_it_asks_for(
            filter in any_filter(),
            members in proptest::collection::btree_map("[xyz]", any_value(), 0..4),
        ) {
            let metadata = Json::from_iter(members);
            if filter.holds(&metadata) {
                let asked = filter.signature();
                prop_assert_eq!(signature(&metadata) & asked, asked);
            }
            prop_assert_ne!(filter.holds(&metadata), filter.clone().negated().holds(&metadata));
        }
    }

    #[test]
    fn numbers_are_equal_by_worth_and_missing_fields_equal_nothing() {
        let row = json!({ "a": 1, "b": null, "c": { "d": [0, 7] }, "e": 1.5 });
        assert!(Filter::eq("a", 1.0).holds(&row));
        assert!(Filter::any_of("a", [7, 1]).holds(&row));
        assert!(Filter::eq("b", Json::Null).holds(&row));
        assert!(!Filter::eq("z", Json::Null).holds(&row));
        assert!(Filter::eq("/c/d/1", 7).holds(&row));
        assert!(Filter::exists("b").and(Filter::exists("z").negated()).holds(&row));
        assert!(Filter::below("e", 1.6).holds(&row) && !Filter::below("b", 1.6).holds(&row));
        assert!(!Filter::eq("a", 1).holds(&Json::Null));
        assert_eq!(signature(&Json::from("no object")), 0);
    }

    #[test]
    fn signatures_keep_most_other_rows_out() {
        let asked = Filter::eq("id", 5).signature();
        let rows = (0..10_000).map(|i| signature(&json!({ "id": i, "even": i % 2 == 0 })));
        let through = rows.filter(|own| own & asked == asked).count();
        assert!((1..200).contains(&through), "{through}");
    }
}
