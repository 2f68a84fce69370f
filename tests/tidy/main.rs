//! What a program checks so that nobody has to remember it: one rule a file, each with its test.
//! `cargo test -p terrace-tests --test tidy` prints every broken rule with file and line.

#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "reads the repository's own files; an index out of range is a failed test"
)]

mod ascii;
mod assertions;
mod banned;
mod blobs;
mod changelog;
mod cycles;
mod dead_files;
mod error_variants;
mod file_length;
mod floors;
mod format_spec;
mod function_length;
mod heads;
mod imports;
mod ratchet;
mod scan;
mod tree;
mod unsafe_code;
mod width;

use std::sync::LazyLock;

use crate::tree::{Finding, Tree};

static TREE: LazyLock<Tree> = LazyLock::new(Tree::read);

fn assert_holds(rule: fn(&Tree) -> Vec<Finding>) {
    let findings: Vec<String> = rule(&TREE).iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{} broken:\n{}\n", findings.len(), findings.join("\n"));
}

#[test]
fn tidy_modules_look_down() {
    assert_holds(floors::check);
}

#[test]
fn tidy_modules_have_no_cycle() {
    assert_holds(cycles::check);
}

#[test]
fn tidy_functions_fit_a_screen() {
    assert_holds(function_length::check);
}

#[test]
fn tidy_files_hold_one_concept() {
    assert_holds(file_length::check);
}

#[test]
fn tidy_lines_fit_the_width() {
    assert_holds(width::check);
}

#[test]
fn tidy_rust_is_ascii() {
    assert_holds(ascii::check);
}

#[test]
fn tidy_nothing_banned_is_left_behind() {
    assert_holds(banned::check);
}

#[test]
fn tidy_no_file_is_dead() {
    assert_holds(dead_files::check);
}

#[test]
fn tidy_every_test_can_fail() {
    assert_holds(assertions::check);
}

#[test]
fn tidy_every_file_has_its_head() {
    assert_holds(heads::check);
}

#[test]
fn tidy_code_and_format_document_agree() {
    assert_holds(format_spec::check);
}

#[test]
fn tidy_nothing_large_is_tracked() {
    assert_holds(blobs::check);
}

#[test]
fn tidy_every_error_is_produced_by_a_test() {
    assert_holds(error_variants::check);
}

#[test]
fn tidy_the_changelog_has_an_unreleased_section() {
    assert_holds(changelog::check);
}

#[test]
fn tidy_unsafe_lives_in_one_module() {
    assert_holds(unsafe_code::check);
}
