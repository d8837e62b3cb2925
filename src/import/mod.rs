//! Pipelines of the program before this one: rows of its configuration database become pipeline files.
//!
//! ```text
//! sources, destinations, pipelines ──rows──> found ──translate──> files, and what is to be known of them
//! ```
//! # Guarantees
//! The database is read in one transaction that cannot write. Passwords, passphrases and URLs with tokens never leave it: the
//! query asks only whether they are there, and the files name environment variables. Every file that is made passes
//! `validate`. What cannot be translated, or means something else here, is said.

mod rows;
#[cfg(test)]
mod tests;
mod translate;

pub(crate) use rows::read;
pub(crate) use translate::translate;

use crate::{Code, Exit};

/// The database is not one of that program.
pub(crate) const NOT_ITS_DATABASE: Code = Code::new("IMP0001", Exit::Environment);

/// Something to be known of what was made, or of what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// What it is about, such as `pipeline "orders"`.
    pub(crate) about: String,
    /// What there is to know.
    pub(crate) what: String,
}

/// A pipeline file.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Its name, such as `orders.yaml`.
    pub(crate) file: String,
    /// Its text.
    pub(crate) text: String,
}

/// What became of everything.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    /// Files, by name.
    pub(crate) files: Vec<Made>,
    /// Environment variables that the files read, and where each value stands.
    pub(crate) secrets: Vec<(String, String)>,
    /// What there is to know.
    pub(crate) notes: Vec<Note>,
    /// Pipelines that could not be translated.
    pub(crate) failed: usize,
}
