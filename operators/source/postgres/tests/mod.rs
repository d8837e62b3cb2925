//! The source against real servers, with a sink that is a model: it applies every row and refuses a
//! token that does not ascend.

mod candidates;
mod changes;
mod driver;
mod failures;
mod join;
mod keys;
mod pause;
mod preflight;
mod snapshot;
mod stream;
mod streaming;
