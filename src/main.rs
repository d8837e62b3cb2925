//! The etl-stream binary.
fn main() {}
