//! What reading one value gives, and why a value cannot be read.

/// A value read from its wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// The column's own value.
    Is(T),
    /// A value that the column's type cannot carry: its exact text is kept beside it.
    Beyond,
    /// Not the form that PostgreSQL documents for the type.
    Malformed,
}

impl<T> Read<T> {
    /// The value, or [`Read::Beyond`].
    #[inline]
    pub(super) fn or_beyond(value: Option<T>) -> Self {
        value.map_or(Self::Beyond, Self::Is)
    }

    /// The value, or [`Read::Malformed`].
    #[inline]
    pub(super) fn or_malformed(value: Option<T>) -> Self {
        value.map_or(Self::Malformed, Self::Is)
    }
}

/// Why a column could not take a run of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// A value is not in its type's form.
    #[error("a value is not in the form PostgreSQL documents for its type")]
    Form,
    /// The stream sends the type in binary, and its binary form is not known.
    #[error("a value came in binary form, which is not documented for its type")]
    NoBinaryForm,
    /// Text that is not UTF-8.
    #[error("a text value is not UTF-8")]
    NotUtf8,
    /// More than 2 GiB in one column of one batch.
    #[error("a value is larger than 2 GiB when encoded")]
    TooLarge,
}

impl From<crate::decode::Fault> for Malformed {
    fn from(_: crate::decode::Fault) -> Self {
        Self::Form
    }
}
