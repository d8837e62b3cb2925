//! Stage: transform. Operators that keep, drop, rename, hide, convert and sort rows.
//!
//! ```text
//! encode ──row batches──> filter | project | rename | mask | cast | route … ──row batches──> batch
//! ```
//!
//! # Guarantees
//! Every operator here is stateless, keeps tokens and row order, and leaves alone what its settings do
//! not name. What it cannot do exactly it refuses with a code; nothing is dropped, nulled or rounded
//! that the settings do not ask for. No I/O, no clock.

mod array_text;
mod cast;
mod decimal;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod mask;
mod parse;
mod predicate;
mod project;
mod rename;
mod route;
mod scope;
mod select;
mod temporal;
mod text;

use crate::contract::{Code, Exit, Registry};

/// A predicate is not one this program reads.
pub(crate) const CFG_PREDICATE: Code = Code::new("CFG0030", Exit::Usage);
/// A setting names a column that its table does not have.
pub(crate) const CFG_COLUMN: Code = Code::new("CFG0031", Exit::Usage);
/// A predicate or cast does not fit a column's type.
pub(crate) const CFG_TYPE: Code = Code::new("CFG0032", Exit::Usage);
/// Settings of an operator contradict each other or lack a part.
pub(crate) const CFG_SETTINGS: Code = Code::new("CFG0034", Exit::Usage);
/// A mask's key is short.
pub(crate) const CFG_KEY: Code = Code::new("CFG0035", Exit::Usage);
/// A predicate hangs on a value that PostgreSQL did not send.
pub(crate) const OP_UNCHANGED: Code = Code::new("OP0001", Exit::Failure);
/// The settings would take a table's key from it.
pub(crate) const OP_KEY: Code = Code::new("OP0002", Exit::Usage);
/// A value does not fit the type it is cast to.
pub(crate) const OP_CAST: Code = Code::new("OP0003", Exit::Failure);
/// A column of one batch would pass 2 GiB of text.
pub(crate) const OP_SIZE: Code = Code::new("OP0004", Exit::Failure);

/// Adds this stage's node types.
pub(crate) fn register(registry: Registry) -> Registry {
    registry
        .operator::<filter::FilterConfig>()
        .operator::<project::ProjectConfig>()
        .operator::<rename::RenameConfig>()
        .operator::<mask::MaskConfig>()
        .operator::<cast::CastConfig>()
        .operator::<route::RouteConfig>()
}

#[cfg(test)]
pub(crate) mod tests;
