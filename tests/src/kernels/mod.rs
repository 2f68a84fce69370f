//! The engine's kernels under every order of steps: their own sources, over the atomics and locks
//! of `loom`, which also plays through what the memory of weaker processors may show.
//! Each model asserts a promise; `tests/kernels` runs it as it is, and with a violation planted.

pub mod index;
pub mod length;
pub mod shared_flush;

/// Runs a model in all orders in which at most `turns` turns are taken from a thread that could
/// have gone on.
fn explore(turns: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(turns);
    builder.check(model);
}
