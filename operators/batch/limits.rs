//! When a batch is sealed, and why it was.

use crate::contract::{BatchSettings, ByteSize, Period};
use std::time::Duration;

/// The limits of a sink's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of values.
    pub bytes: usize,
    /// How long the oldest row waits.
    pub age: Duration,
}

impl Limits {
    /// The user's settings, and the sink's where the user sets none.
    #[must_use]
    pub fn new(settings: BatchSettings) -> Self {
        Self {
            rows: settings.max_rows.unwrap_or(100_000).max(1) as usize,
            bytes: settings.max_bytes.unwrap_or(ByteSize::mib(16)).0.max(1) as usize,
            age: settings.max_age.unwrap_or(Period::millis(1_000)).0,
        }
    }
}

/// Why a batch was sealed: the label of `etl_stream_batches_sealed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealReason {
    /// Enough rows.
    Rows,
    /// Enough bytes.
    Bytes,
    /// The oldest row waited long enough.
    Age,
    /// A mark follows.
    Mark,
    /// The next rows have another schema.
    Schema,
    /// The source waits for credit.
    Pressure,
    /// The stream ended.
    End,
}

impl SealReason {
    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Mark => "mark",
            Self::Schema => "schema",
            Self::Pressure => "pressure",
            Self::End => "end",
        }
    }
}
