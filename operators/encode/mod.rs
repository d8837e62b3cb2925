//! Stage: encode.
