//! The goal: no order of threads' steps, and nothing that weaker memory may show, breaks a kernel.
//! The method: `loom` walks through the orders; the kernels are the engine's sources. Each model is
//! run as it is, and once with a violation planted that it must catch.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use terrace_tests::kernels::index::a_reader_sees_an_entry_whole_beside_a_relocation;
use terrace_tests::kernels::length::readers_see_what_is_below_a_published_length;
use terrace_tests::kernels::shared_flush::{Planted, a_flush_serves_all_who_wait};

/// Whether the model finds what is planted in it.
fn catches(model: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(model)).is_err()
}

#[test]
fn a_published_length_covers_stored_bytes_alone() {
    readers_see_what_is_below_a_published_length(false);
    assert!(catches(|| readers_see_what_is_below_a_published_length(true)));
}

#[test]
fn an_index_entry_is_whole_beside_a_put_or_a_relocation() {
    a_reader_sees_an_entry_whole_beside_a_relocation(false);
    assert!(catches(|| a_reader_sees_an_entry_whole_beside_a_relocation(true)));
}

#[test]
fn whoever_returns_from_a_flush_is_durable_and_nobody_waits_for_ever() {
    a_flush_serves_all_who_wait(Planted::Nothing);
    assert!(catches(|| a_flush_serves_all_who_wait(Planted::Claims)));
    assert!(catches(|| a_flush_serves_all_who_wait(Planted::Deaf)));
}
