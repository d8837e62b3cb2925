//! What an answer of Snowflake asks for: another try, a new token, a reopened channel, or the end.
//!
//! Transient unless proven definite: only what is listed here stops the pipeline.

/// What to do about a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Again, after a pause.
    Retry,
    /// Again, with a new token.
    Reauthenticate,
    /// The channel has rows that are not committed yet: wait, then again.
    Uncommitted,
    /// Another writer, or an earlier request of our own, took the channel's turn: reopen and replay.
    Fenced,
    /// The channel is no longer valid: reopen and replay.
    Reopen,
    /// A pipe, table, database or privilege is missing.
    Missing,
    /// The user or key is not accepted.
    Denied,
    /// It will fail again.
    Stop,
}

/// Codes by what they ask for, whatever the status they come with.
const CODES: &[(&str, Verdict)] = &[
    ("ERR_GENERAL_EXCEPTION_RETRY_REQUEST", Verdict::Retry),
    ("ERR_OPEN_CHANNEL_IN_PROGRESS", Verdict::Retry),
    ("ERR_CHANNEL_HAS_UNCOMMITTED_DATA", Verdict::Uncommitted),
    ("STALE_CONTINUATION_TOKEN_SEQUENCER", Verdict::Fenced),
    ("ERR_CHANNEL_HAS_INVALID_CLIENT_SEQUENCER", Verdict::Fenced),
    ("ERR_CHANNEL_HAS_INVALID_ROW_SEQUENCER", Verdict::Reopen),
    ("ERR_CHANNEL_MUST_BE_REOPENED", Verdict::Reopen),
    ("ERR_CHANNEL_MUST_BE_REOPENED_DUE_TO_ROW_SEQ_GAP", Verdict::Reopen),
    ("ERR_CHANNEL_DOES_NOT_EXIST_OR_IS_NOT_AUTHORIZED", Verdict::Reopen),
    ("STALE_PIPE_CACHE", Verdict::Reopen),
    ("ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", Verdict::Missing),
    ("ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED", Verdict::Missing),
    ("ERR_DATABASE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", Verdict::Missing),
    ("ERR_SCHEMA_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", Verdict::Missing),
    // SQL API. 390318: the session's token expired; 390144 and 390303: the JWT or scoped token was not accepted.
    ("390144", Verdict::Reauthenticate),
    ("390303", Verdict::Reauthenticate),
    ("390318", Verdict::Reauthenticate),
    ("390100", Verdict::Denied),
    ("390101", Verdict::Denied),
    ("390186", Verdict::Denied),
    ("390189", Verdict::Denied),
    ("390201", Verdict::Denied),
    ("000606", Verdict::Missing),
    ("002003", Verdict::Missing),
    ("002043", Verdict::Missing),
    ("003001", Verdict::Missing),
    // The statement lost a lock or its time: 000604 cancelled, 000625 and 000626 lock, 000630 timeout.
    ("000604", Verdict::Retry),
    ("000625", Verdict::Retry),
    ("000626", Verdict::Retry),
    ("000630", Verdict::Retry),
];

/// What an answer asks for.
pub(super) fn classify(status: u16, code: &str) -> Verdict {
    if let Some((_, verdict)) = CODES.iter().find(|(known, _)| *known == code) {
        return *verdict;
    }
    match status {
        401 => Verdict::Reauthenticate,
        403 => Verdict::Denied,
        408 | 425 | 429 => Verdict::Retry,
        409 if code.starts_with("ERR_CHANNEL_") => Verdict::Reopen,
        400..=499 => Verdict::Stop,
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (status, code, verdict) in [
            (429, "", Verdict::Retry),
            (500, "", Verdict::Retry),
            (503, "ERR_SOMETHING_NEW", Verdict::Retry),
            (408, "000630", Verdict::Retry),
            (200, "ERR_GENERAL_EXCEPTION_RETRY_REQUEST", Verdict::Retry),
            (409, "ERR_OPEN_CHANNEL_IN_PROGRESS", Verdict::Retry),
            (409, "ERR_CHANNEL_HAS_UNCOMMITTED_DATA", Verdict::Uncommitted),
            (400, "STALE_CONTINUATION_TOKEN_SEQUENCER", Verdict::Fenced),
            (409, "ERR_CHANNEL_MUST_BE_REOPENED", Verdict::Reopen),
            (409, "ERR_CHANNEL_OF_A_LATER_VERSION", Verdict::Reopen),
            (404, "ERR_CHANNEL_DOES_NOT_EXIST_OR_IS_NOT_AUTHORIZED", Verdict::Reopen),
            (404, "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED", Verdict::Missing),
            (401, "390144", Verdict::Reauthenticate),
            (401, "", Verdict::Reauthenticate),
            (403, "", Verdict::Denied),
            (422, "002003", Verdict::Missing),
            (422, "001003", Verdict::Stop),
            (422, "000625", Verdict::Retry),
            (422, "002002", Verdict::Stop),
            (413, "ERR_PAYLOAD_TOO_LARGE", Verdict::Stop),
            (400, "ERR_INVALID_REQUEST", Verdict::Stop),
        ] {
            assert_eq!(classify(status, code), verdict, "{status} {code}");
        }
    }
}
