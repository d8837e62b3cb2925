//! The etl-stream engine.
