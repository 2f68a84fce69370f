//! Memory of an agent's process, on the Terrace engine: sessions, token budgets, conversations,
//! caches, workflow state, snapshots, events, and a long-term memory in Markdown. Synchronous; no
//! threads of its own.
//!
//! Everything lives behind one small trait, [`store::Store`]; every abstraction is a cheap handle
//! over it. [`store::EngineStore`] keeps it on disk, [`store::MemStore`] in memory.
#![deny(unsafe_code)] // lifted in `vector::simd` alone; see docs/decisions.md

pub mod budget;
pub mod cache;
pub mod channel;
pub mod codec;
pub mod compressed;
pub mod context;
pub mod conversation;
pub mod embed;
pub mod error;
pub mod event;
pub mod hook;
pub mod leak;
pub mod recall;
pub mod retention;
pub mod session;
pub mod state;
pub mod store;
pub mod summary;
pub mod sync;
pub mod tiered;
pub mod tokens;
pub mod vector;
pub mod workflow;

mod clock;
mod keys;
mod worker;

pub use codec::Json;
pub use error::{Error, Result};

/// The guide, so that its examples run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/memory.md")]
mod guide {}
