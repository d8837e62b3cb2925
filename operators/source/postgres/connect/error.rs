//! What can go wrong between here and a PostgreSQL server, by code and class.
//!
//! Messages name what was tried and where (`host:port/database as user`), the SQLSTATE and the server's
//! message. Never the server's DETAIL, CONTEXT or STATEMENT: those can hold row values; nor the message of
//! a data exception (SQLSTATE class 22), which quotes the value.

use super::wire::Fields;
use crate::contract::{Code, CodedError, Exit};
use std::fmt;
use std::io;

/// No connection to the server.
pub(crate) const PG_UNREACHABLE: Code = Code::new("PG0001", Exit::Environment);
/// The server rejects the user, the password or the certificate.
pub(crate) const PG_AUTHENTICATION: Code = Code::new("PG0002", Exit::Environment);
/// There is no such database.
pub(crate) const PG_DATABASE: Code = Code::new("PG0003", Exit::Environment);
/// TLS: refused, not trusted, another host's name, or unreadable files.
pub(crate) const PG_TLS: Code = Code::new("PG0004", Exit::Environment);
/// The server takes no connections for now.
pub(crate) const PG_BUSY: Code = Code::new("PG0005", Exit::Environment);
/// The connection ended while in use.
pub(crate) const PG_LOST: Code = Code::new("PG0006", Exit::Failure);
/// The connection's settings make no sense.
pub(crate) const PG_SETTINGS: Code = Code::new("PG0007", Exit::Usage);
/// The user may not replicate.
pub(crate) const PG_REPLICATION_ROLE: Code = Code::new("PG0008", Exit::Environment);
/// The server did not do what was asked.
pub(crate) const PG_QUERY: Code = Code::new("PG0009", Exit::Failure);

/// When an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the first statement.
    Connecting {
        /// Whether the connection is a walsender's.
        replication: bool,
    },
    /// After.
    Running,
}

/// An error's SQLSTATE, kept as the cause so that callers can tell one refusal from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SqlState(pub(super) String);

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}", self.0)
    }
}

impl std::error::Error for SqlState {}

/// The SQLSTATE behind an error of this module, such as `55006` for a slot in use.
pub(crate) fn sqlstate(error: &CodedError) -> Option<&str> {
    error.cause.as_ref()?.downcast_ref::<SqlState>().map(|state| state.0.as_str())
}

/// Whether the same request may succeed later, by SQLSTATE (PostgreSQL manual, appendix A): lost connections,
/// conflicts, lack of resources, operators' interventions, the system's and internal errors, locks, a slot in
/// use, a server that is a standby just now. Not corrupted data.
fn passes(state: &str) -> bool {
    let class = ["08", "40", "53", "57", "58", "XX"].iter().any(|class| state.starts_with(class));
    (class && state != "XX001" && state != "XX002") || ["25006", "55006", "55P03"].contains(&state)
}

/// An error the server reported.
pub(super) fn refused(doing: &str, stage: Stage, fields: &Fields) -> CodedError {
    let state = fields.sqlstate.as_str();
    let told = if state.starts_with("22") && stage == Stage::Running {
        "(its message can hold a value and is left out)".to_owned()
    } else {
        fields.message.clone()
    };
    let message = format!("{doing}: the server answered: {told} (SQLSTATE {state})");
    let connecting = stage != Stage::Running;
    let error = match state {
        "28P01" | "28000" if connecting => CodedError::definite(PG_AUTHENTICATION, message)
            .hint("check the user, the password and the lines of pg_hba.conf for this client's address, database and TLS"),
        "3D000" if connecting => CodedError::definite(PG_DATABASE, message).hint("check `database`, or create it"),
        "42501" if stage == (Stage::Connecting { replication: true }) => CodedError::definite(PG_REPLICATION_ROLE, message)
            .hint("as a superuser: ALTER ROLE … REPLICATION (managed services have a role to grant)"),
        "42501" if connecting => {
            CodedError::definite(PG_AUTHENTICATION, message).hint("as the database's owner: GRANT CONNECT ON DATABASE … TO …")
        }
        "22023" | "42704" | "08P01" if connecting => CodedError::definite(PG_SETTINGS, message)
            .hint("check `options` and whether the address is PostgreSQL's own and not a pooler's"),
        "53300" | "57P01" | "57P02" | "57P03" if connecting => CodedError::transient(PG_BUSY, message),
        // character_not_in_repertoire, untranslatable_character: from SQL_ASCII, or stored past the encoding's checks
        "22021" | "22P05" if !connecting => CodedError::definite(PG_QUERY, message)
            .hint("a text has no form in UTF-8: find its row with `convert_from(column::bytea, 'UTF8')` and store it anew, or leave the column out of the publication"),
        _ if !connecting && (state.starts_with("08") || state.starts_with("57P")) => CodedError::transient(PG_LOST, message),
        _ if passes(state) => CodedError::transient(PG_QUERY, message),
        _ => CodedError::definite(PG_QUERY, message),
    };
    error.caused_by(SqlState(state.to_owned()))
}

/// An error of the socket, or bytes that PostgreSQL does not send.
pub(super) fn broken(doing: &str, stage: Stage, error: io::Error) -> CodedError {
    if let Some(tls) = tls_error(&error) {
        return untrusted(doing, tls);
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    };
    match stage {
        Stage::Connecting { .. } => CodedError::transient(PG_UNREACHABLE, format!("{doing}: {what}"))
            .hint("check host and port, that the server listens there, and that no firewall stands between"),
        Stage::Running => CodedError::transient(PG_LOST, format!("{doing}: the connection was lost: {what}")),
    }
}

/// A TLS alert or a rejected certificate behind an error of the socket.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// An error of TLS.
pub(super) fn untrusted(doing: &str, error: &rustls::Error) -> CodedError {
    use rustls::{CertificateError, Error};
    let (what, hint) = match error {
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => (
            "the server's certificate is for another host name".to_owned(),
            "connect by a name the certificate has, or use `mode: verify-ca` where that is safe enough",
        ),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
            "the server's certificate is not signed by an authority trusted here".to_owned(),
            "give the authority's certificate as `tls.ca_file`",
        ),
        Error::InvalidCertificate(reason) => {
            (format!("the server's certificate is not valid: {reason}"), "have the certificate renewed or reissued")
        }
        Error::AlertReceived(alert) => {
            (format!("the server ended the TLS handshake ({alert:?})"), "check `tls.cert_file` and `tls.key_file`, and the server's log")
        }
        other => (format!("TLS failed: {other}"), "check that the server speaks TLS 1.2 or newer"),
    };
    CodedError::definite(PG_TLS, format!("{doing}: {what}")).hint(hint)
}

/// The code and class of an error of tokio-postgres. `doing` says what and where, such as
/// `reading the tables of shop at db.example:5432/shop as loader`.
pub(crate) fn classify(error: &tokio_postgres::Error, doing: &str) -> CodedError {
    at_stage(error, doing, Stage::Running)
}

/// The same while connecting or after.
pub(super) fn at_stage(error: &tokio_postgres::Error, doing: &str, stage: Stage) -> CodedError {
    if let Some(db) = error.as_db_error() {
        return refused(doing, stage, &Fields { sqlstate: db.code().code().to_owned(), message: db.message().to_owned() });
    }
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        if let Some(tls) = tls_error(io) {
            return untrusted(doing, tls);
        }
        return broken(doing, stage, io::Error::new(io.kind(), io.to_string()));
    }
    if error.is_closed() {
        return broken(doing, stage, io::ErrorKind::UnexpectedEof.into());
    }
    let text = error.to_string();
    match stage {
        // SCRAM's own errors, a missing password: texts of tokio-postgres and postgres-protocol, without secrets.
        Stage::Connecting { .. } => {
            let why = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            CodedError::definite(PG_AUTHENTICATION, format!("{doing}: {text}{why}"))
                .hint("check the user, the password and `channel_binding`")
        }
        Stage::Running => CodedError::definite(PG_QUERY, format!("{doing}: {text}")),
    }
}

/// Settings that make no sense.
pub(super) fn settings(message: impl Into<String>) -> CodedError {
    CodedError::definite(PG_SETTINGS, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Class;

    #[test]
    fn codes_and_classes_by_sqlstate() {
        let query = Stage::Connecting { replication: false };
        let walsender = Stage::Connecting { replication: true };
        for (state, stage, code, class) in [
            ("28P01", query, PG_AUTHENTICATION, Class::Definite),
            ("28000", walsender, PG_AUTHENTICATION, Class::Definite),
            ("3D000", query, PG_DATABASE, Class::Definite),
            ("42501", walsender, PG_REPLICATION_ROLE, Class::Definite),
            ("42501", query, PG_AUTHENTICATION, Class::Definite),
            ("42501", Stage::Running, PG_QUERY, Class::Definite),
            ("53300", query, PG_BUSY, Class::Transient),
            ("57P03", walsender, PG_BUSY, Class::Transient),
            ("57P01", Stage::Running, PG_LOST, Class::Transient),
            ("08006", Stage::Running, PG_LOST, Class::Transient),
            ("40001", Stage::Running, PG_QUERY, Class::Transient),
            ("53400", Stage::Running, PG_QUERY, Class::Transient),
            ("55P03", Stage::Running, PG_QUERY, Class::Transient),
            ("55006", Stage::Running, PG_QUERY, Class::Transient),
            ("57014", Stage::Running, PG_QUERY, Class::Transient),
            ("XX000", Stage::Running, PG_QUERY, Class::Transient),
            ("XX001", Stage::Running, PG_QUERY, Class::Definite),
            ("55000", Stage::Running, PG_QUERY, Class::Definite),
            ("42P01", Stage::Running, PG_QUERY, Class::Definite),
            ("22021", Stage::Running, PG_QUERY, Class::Definite),
            ("", Stage::Running, PG_QUERY, Class::Definite),
        ] {
            let error = refused("testing", stage, &Fields { sqlstate: state.into(), message: "no".into() });
            assert_eq!((error.code, error.class), (code, class), "{state} {stage:?}");
            assert_eq!(sqlstate(&error), Some(state));
        }
        let value = Fields { sqlstate: "22P02".into(), message: "invalid input syntax for type integer: \"secret\"".into() };
        assert!(!refused("testing", Stage::Running, &value).report().contains("secret"));
    }
}
