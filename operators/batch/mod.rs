//! Stage: batch.
