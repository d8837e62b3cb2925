//! Decode: from framed wire bytes to the places of a row's values.
//!
//! ```text
//! RawRows ──pgoutput──> Change + Cells ──┐
//!         ──copy──────>          Cells ──┴──> encode
//! ```
//!
//! A decoded tuple is a view: each [`Cell`] says where in the source's shared buffer a value's bytes are, and
//! how they are written. Positions rather than slices, so that one list serves every row without
//! allocating. `encode`, which runs in the same operator, is the only reader.
//!
//! # Guarantees
//! No I/O, no clock, no allocation per value; bytes from outside never panic.

mod cell;
mod copy;
mod cursor;
mod pgoutput;

pub use cell::{Cell, Field};
pub use copy::copy_tuple;
pub use cursor::Cursor;
pub use pgoutput::{Change, change};

/// Why bytes are not a tuple of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end before the message does.
    #[error("the message is cut short")]
    Cut,
    /// Bytes follow the message's end.
    #[error("the message is longer than its tuples")]
    Long,
    /// A tag, kind or length that the protocol does not have.
    #[error("the message is not as the protocol documents it")]
    Shape,
    /// Another number of columns than the relation has.
    #[error("the tuple has {found} columns")]
    Columns {
        /// What the tuple says.
        found: i16,
    },
    /// The message is about another relation.
    #[error("the message is about the relation with id {found}")]
    Relation {
        /// What the message says.
        found: u32,
    },
}
