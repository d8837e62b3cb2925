//! When a batch is sealed, and why it was.

use crate::contract::{BatchSettings, ByteSize, Period};
use std::time::Duration;

/// From here on a copy costs more than a delivery.
const PIECE: usize = 512 << 10;

/// The limits of a sink's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of values.
    pub bytes: usize,
    /// How long the oldest row waits.
    pub age: Duration,
    /// Bytes from which rows are a piece of their batch by themselves, as they came; `usize::MAX` where a batch is one piece.
    pub piece: usize,
}

impl Limits {
    /// The user's settings, and the sink's where the user sets none; whether [in pieces](crate::contract::Sink::in_pieces), as
    /// the sink says.
    #[must_use]
    pub fn new(settings: BatchSettings, in_pieces: bool) -> Self {
        Self {
            rows: settings.max_rows.unwrap_or(100_000).max(1) as usize,
            bytes: settings.max_bytes.unwrap_or(ByteSize::mib(16)).0.max(1) as usize,
            age: settings.max_age.unwrap_or(Period::millis(1_000)).0,
            piece: if in_pieces { PIECE } else { usize::MAX },
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
