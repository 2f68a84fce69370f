//! Terrace: an embedded, tiered key-value storage engine.
#![deny(unsafe_code)]

mod error;
mod hash;
mod ids;
mod limits;
mod options;
mod value;

mod vfs;

mod codec;
mod format;

mod manifest;

mod cold;
mod warm;

pub use error::{Damage, Error, Result};
pub use options::{Durability, KeyspaceOptions, OpenPolicy, Options, PutOptions};
pub use value::Value;
