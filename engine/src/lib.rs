//! Terrace: an embedded, tiered key-value storage engine.

mod error;
mod hash;
mod ids;
mod limits;
mod value;

mod vfs;

mod format;

mod cold;

pub use error::{Damage, Error, Result};
pub use value::Value;
