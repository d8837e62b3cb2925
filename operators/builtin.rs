//! The node types every binary has. A binary of your own adds to them:
//! `etl_stream::cli::main(Registry::builtin().operator::<MyOperator>())`.

use crate::contract::Registry;
use crate::{python, sink, source, transform};

impl Registry {
    /// Every node type of this crate.
    #[must_use]
    pub fn builtin() -> Self {
        let registry = source::register(Self::empty());
        let registry = transform::register(registry);
        let registry = python::register(registry);
        sink::register(registry)
    }
}
