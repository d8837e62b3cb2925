//! Python, in processes of its own.
//!
//! ```text
//! engine ──Request──> Pool ──> Worker ══unix socket══> python3 (the user's operator, or Snowflake's SDK)
//! ```
//! The engine's process has no Python in it. `pool` and what is below it know nothing of what they carry: the operator
//! here and the `snowflake` sink's `via: sdk` are two users of them.
//!
//! # Guarantees
//! As [`pool`] and [`worker`] say. The user's code is not confined: it may do all that the process may.

mod errors;
mod frame;
mod lanes;
mod letters;
pub(crate) mod pool;
pub(crate) mod process;
mod render;
mod rows;
mod settings;
mod shape;
mod told;
pub(crate) mod worker;

pub(crate) use errors::PY_START;
pub(crate) use frame::Frame;
pub(crate) use told::Told;

use crate::contract::Registry;

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry.render::<settings::PythonConfig>()
}

#[cfg(test)]
mod tests;
