//! Terrace: an embedded, tiered key-value storage engine.
#![deny(unsafe_code)]

mod error;
mod hash;
mod ids;
mod key;
mod limits;
mod options;
mod value;

mod vfs;

mod codec;
mod format;

mod manifest;

mod cold;
mod hot;
mod warm;

mod tiering;
mod tiers;

pub use error::{Damage, Error, Result};
pub use key::Key;
pub use options::{Durability, KeyspaceOptions, OpenPolicy, Options, PutOptions};
pub use value::Value;
