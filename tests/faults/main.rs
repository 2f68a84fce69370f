//! What the world may do to the files of a store: hostile bytes, damage at rest, planted names.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod limits;
mod security;
mod seeds;
mod sweep;
