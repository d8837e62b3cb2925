//! The scenarios: which tables there are, and what their changes do.

use super::value::Kind;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Inserts of three small columns.
    NarrowInsert,
    /// Updates of forty columns; the whole row is sent.
    WideUpdate,
    /// Updates of a row with a value of 8 KiB that is sent with one update of sixteen, and unchanged with the others.
    ToastUpdate,
    /// Inserts, updates and deletes of ten columns in fifty tables, one table after the other.
    ManyTables,
    /// Inserts of ten columns, all in one transaction.
    LargeTransaction,
    /// A copy of a table of ten columns, and no changes after it.
    Snapshot,
    /// Inserts, updates and deletes of ten columns in one table: for a pipeline that filters and masks.
    MaskFilter,
}

/// What the changes of a table do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    Inserts,
    /// After the first [`KEYS`] changes, which insert.
    Updates,
    /// Of ten: seven inserts, two updates, a delete.
    All,
}

/// Rows that updates go to.
pub(super) const KEYS: u64 = 1_000;

/// int8, int4, text, varchar, numeric(18,4), timestamptz, bool, jsonb, uuid, text[].
const TEN: [(&str, Kind); 10] = [
    ("id", Kind::Int8),
    ("quantity", Kind::Int4),
    ("note", Kind::Text),
    ("code", Kind::Varchar),
    ("total", Kind::Numeric),
    ("placed", Kind::TimestampTz),
    ("paid", Kind::Bool),
    ("details", Kind::Jsonb),
    ("key", Kind::Uuid),
    ("tags", Kind::Texts),
];

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 7] = [
        Self::NarrowInsert,
        Self::WideUpdate,
        Self::ToastUpdate,
        Self::ManyTables,
        Self::LargeTransaction,
        Self::Snapshot,
        Self::MaskFilter,
    ];

    /// Its word in a pipeline file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NarrowInsert => "narrow_insert",
            Self::WideUpdate => "wide_update",
            Self::ToastUpdate => "toast_update",
            Self::ManyTables => "many_tables",
            Self::LargeTransaction => "large_transaction",
            Self::Snapshot => "snapshot",
            Self::MaskFilter => "mask_filter",
        }
    }

    /// The columns of its tables: names and kinds. The first, `id`, is the key.
    #[must_use]
    pub fn columns(self) -> Vec<(String, Kind)> {
        let named = |columns: &[(&str, Kind)]| columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        match self {
            Self::NarrowInsert => named(&TEN[..3]),
            Self::WideUpdate => {
                let more = (1..=3).flat_map(|part| {
                    TEN.iter().filter(|(name, _)| *name != "id").map(move |(name, kind)| (format!("{name}_{part}"), *kind))
                });
                let mut columns: Vec<_> = named(&TEN);
                columns.extend(more);
                columns.extend((1..=3).map(|part| (format!("count_{part}"), Kind::Int8)));
                columns
            }
            Self::ToastUpdate => named(&[TEN[0], TEN[1], TEN[4], ("body", Kind::Body)]),
            _ => named(&TEN),
        }
    }

    pub(super) const fn mix(self) -> Mix {
        match self {
            Self::NarrowInsert | Self::LargeTransaction | Self::Snapshot => Mix::Inserts,
            Self::WideUpdate | Self::ToastUpdate => Mix::Updates,
            Self::ManyTables | Self::MaskFilter => Mix::All,
        }
    }

    /// How many tables it has.
    #[must_use]
    pub const fn tables(self) -> u32 {
        if matches!(self, Self::ManyTables) { 50 } else { 1 }
    }

    /// Changes in a transaction, where nothing else is said.
    #[must_use]
    pub const fn transaction(self) -> u32 {
        if matches!(self, Self::LargeTransaction) { 500_000 } else { 100 }
    }
}
