//! Who gets in, who does not and with which code; and what every session is set to.

use super::super::*;
use super::{connect, endpoint, put, reload, secret, settings};
use crate::contract::{Class, Code, CodedError};
use crate::testing::postgres::Postgres;
use std::io::Write;
use std::path::Path;

const HBA: &str = "
local all all            trust
host  all postgres       127.0.0.1/32 trust
host  all md5_user       127.0.0.1/32 md5
host  all clear_user     127.0.0.1/32 password
host  all outsider       127.0.0.1/32 reject
host  all all            127.0.0.1/32 scram-sha-256
";

#[tokio::test]
async fn who_gets_in() {
    let postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    client
        .batch_execute(
            "SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN REPLICATION PASSWORD 'right';
             SET password_encryption = 'scram-sha-256'; CREATE ROLE clear_user LOGIN REPLICATION PASSWORD 'right';
             CREATE ROLE scram LOGIN REPLICATION PASSWORD 'right'; CREATE ROLE outsider LOGIN REPLICATION;
             CREATE ROLE \"Ünïcode %@:/\" LOGIN REPLICATION PASSWORD 'p@ss:w/rd % \u{a0}ß';
             CREATE ROLE reader LOGIN PASSWORD 'right';
             ALTER ROLE scram SET DateStyle = 'German'; ALTER ROLE scram SET search_path = 'nowhere';
             ALTER ROLE scram SET statement_timeout = '1min'; ALTER ROLE scram SET extra_float_digits = 0;",
        )
        .await
        .unwrap();
    put(&postgres, "pg_hba.conf", HBA.as_bytes());
    reload(&postgres).await;
    for (user, password, database, expected) in [
        ("postgres", None, "postgres", Ok(false)),
        ("scram", Some("right"), "postgres", Ok(false)),
        ("md5_user", Some("right"), "postgres", Ok(false)),
        ("clear_user", Some("right"), "postgres", Ok(false)),
        ("Ünïcode %@:/", Some("p@ss:w/rd % \u{a0}ß"), "postgres", Ok(false)),
        ("scram", Some("wrong-secret"), "postgres", Err(PG_AUTHENTICATION)),
        ("md5_user", Some("wrong-secret"), "postgres", Err(PG_AUTHENTICATION)),
        ("clear_user", Some("wrong-secret"), "postgres", Err(PG_AUTHENTICATION)),
        ("scram", None, "postgres", Err(PG_AUTHENTICATION)),
        ("outsider", Some("wrong-secret"), "postgres", Err(PG_AUTHENTICATION)),
        ("nobody", Some("wrong-secret"), "postgres", Err(PG_AUTHENTICATION)),
        ("postgres", None, "no_such", Err(PG_DATABASE)),
    ] {
        let mut settings = settings(&postgres, "127.0.0.1", user);
        settings.password = password.and_then(secret);
        settings.database = Some(database.into());
        assert_eq!(connect(&settings).await, expected, "{user} {password:?} {database}");
    }

    // The same, spelled as a URL, and from a password file.
    let url = format!("postgres://scram:right@127.0.0.1:{}/postgres?application_name=my%20app", postgres.port());
    assert_eq!(connect(&ConnectSettings { url: secret(&url), ..ConnectSettings::default() }).await, Ok(false));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "127.0.0.1:{}:*:scram:right", postgres.port()).unwrap();
    let url = format!("host=127.0.0.1 port={} user=scram dbname=postgres passfile='{}'", postgres.port(), file.path().display());
    assert_eq!(connect(&ConnectSettings { url: secret(&url), ..ConnectSettings::default() }).await, Ok(false));

    let mut reader = settings(&postgres, "127.0.0.1", "reader");
    reader.password = secret("right");
    let error = endpoint(&reader).unwrap().replicate("test").await.err().unwrap();
    assert_eq!((error.code, error.class), (PG_REPLICATION_ROLE, Class::Definite), "{error:?}");
    assert!(endpoint(&reader).unwrap().query("test").await.is_ok());

    sessions_are_alike(&postgres).await;
    statements_and_their_errors(&postgres).await;
    several_hosts(&postgres).await;
}

/// Whatever a role's own settings are.
async fn sessions_are_alike(postgres: &Postgres) {
    let mut settings = settings(postgres, "127.0.0.1", "scram");
    settings.password = secret("right");
    settings.options = Some("-c work_mem=5MB".into());
    let endpoint = endpoint(&settings).unwrap();
    assert_eq!(endpoint.host_label(), format!("127.0.0.1:{}", postgres.port()));
    assert_eq!((endpoint.database(), endpoint.user()), ("postgres", "scram"));
    assert!(!format!("{endpoint:?}").contains("right"));
    let client = endpoint.query("snapshot").await.unwrap();
    let mut walsender = endpoint.replicate("shop").await.unwrap();
    let pid = walsender.backend_pid().to_string();
    assert!(walsender.server_major() >= 15);
    let sql = "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('DateStyle', 'IntervalStyle', 'TimeZone', 'extra_float_digits', \
               'client_encoding', 'search_path', 'statement_timeout', 'lock_timeout', 'bytea_output', 'work_mem', 'application_name', \
               'idle_session_timeout') ORDER BY name COLLATE \"C\"";
    let expected = |application: &str, lock: &str| {
        format!(
            "DateStyle=ISO, YMD IntervalStyle=postgres TimeZone=UTC application_name=etl-stream {application} bytea_output=hex client_encoding=UTF8 \
             extra_float_digits=3 idle_session_timeout=0 lock_timeout={lock} search_path=pg_catalog statement_timeout=0 work_mem=5120"
        )
    };
    let rows: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(rows.join(" "), expected("snapshot", "30000"));
    let rows: Vec<String> = walsender.simple_query(sql).await.unwrap().into_iter().flatten().flatten().collect();
    assert_eq!(rows.join(" "), expected("shop", "0"));
    let rows = walsender.simple_query("SELECT pg_backend_pid(), NULL, ''; SELECT 1").await.unwrap();
    assert_eq!(rows, [vec![Some(pid), None, Some(String::new())], vec![Some("1".into())]]);
    assert_eq!(walsender.simple_query("IDENTIFY_SYSTEM").await.unwrap()[0][3].as_deref(), Some("postgres"));
}

async fn statements_and_their_errors(postgres: &Postgres) {
    let endpoint = endpoint(&settings(postgres, "127.0.0.1", "postgres")).unwrap();
    let client = endpoint.query("test").await.unwrap();
    let mut walsender = endpoint.replicate("test").await.unwrap();
    let create = "CREATE_REPLICATION_SLOT \"twice\" LOGICAL pgoutput NOEXPORT_SNAPSHOT";
    walsender.simple_query(create).await.unwrap();
    let error = walsender.simple_query(create).await.unwrap_err();
    assert_eq!((error.code, error.class, sqlstate(&error)), (PG_QUERY, Class::Definite, Some("42710")));
    assert!(error.message.contains("CREATE_REPLICATION_SLOT \"twice\""), "{error}");
    let error = walsender.simple_query("SELECT 'a-value'::int").await.unwrap_err();
    assert!(!error.report().contains("a-value"), "{error:?}");
    assert!(walsender.simple_query("SELECT 1").await.is_ok(), "an error leaves the connection in use");

    let refused: [(&str, Code, Class); 3] = [
        ("SELECT * FROM public.no_such", PG_QUERY, Class::Definite),
        ("SELECT 'a-value'::int", PG_QUERY, Class::Definite),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001', DETAIL = 'a-value'; END $$", PG_QUERY, Class::Transient),
    ];
    for (sql, code, class) in refused {
        let error: CodedError = classify(&client.batch_execute(sql).await.unwrap_err(), "asking");
        assert_eq!((error.code, error.class), (code, class), "{error:?}");
        assert!(!error.report().contains("a-value"), "{error:?}");
    }
    let other = endpoint.query("test").await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    other.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await.unwrap();
    let error = classify(&client.batch_execute("SELECT 1").await.unwrap_err(), "asking");
    assert_eq!((error.code, error.class), (PG_LOST, Class::Transient), "{error:?}");
    let pid = walsender.backend_pid();
    other.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await.unwrap();
    let error = walsender.simple_query("SELECT 1").await.unwrap_err();
    assert_eq!((error.code, error.class), (PG_LOST, Class::Transient), "{error:?}");
}

async fn several_hosts(postgres: &Postgres) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
    let open = postgres.port();
    let url =
        |target: &str| secret(&format!("postgres://postgres@127.0.0.1:{closed},localhost:{open}/postgres?target_session_attrs={target}"));
    for (target, expected) in [
        ("any", Ok(false)),
        ("read-write", Ok(false)),
        ("primary", Ok(false)),
        ("prefer-standby", Ok(false)),
        ("standby", Err(PG_UNREACHABLE)),
        ("read-only", Err(PG_UNREACHABLE)),
    ] {
        assert_eq!(connect(&ConnectSettings { url: url(target), ..ConnectSettings::default() }).await, expected, "{target}");
    }
    let nowhere = settings(postgres, "127.0.0.1", "postgres");
    let nowhere = ConnectSettings { port: Some(closed), ..nowhere };
    assert_eq!(connect(&nowhere).await, Err(PG_UNREACHABLE));
    let error = endpoint(&nowhere).unwrap().query("test").await.err().unwrap();
    assert_eq!(error.class, Class::Transient);
    assert!(error.message.contains(&format!("127.0.0.1:{closed}/postgres as postgres")), "{error}");
    assert!(!Path::new("/no/such").exists());
    assert_eq!(
        connect(&ConnectSettings { host: Some("/no/such".into()), ..settings(postgres, "", "postgres") }).await,
        Err(PG_UNREACHABLE)
    );
}

#[tokio::test]
async fn a_full_server_is_transient() {
    let postgres = Postgres::start_with(&["max_connections=3", "superuser_reserved_connections=0", "max_wal_senders=1"]);
    let endpoint = endpoint(&settings(&postgres, "127.0.0.1", "postgres")).unwrap();
    let mut kept = Vec::new();
    let error = loop {
        match endpoint.query("test").await {
            Ok(client) => kept.push(client),
            Err(error) => break error,
        }
        assert!(kept.len() < 10);
    };
    assert_eq!((error.code, error.class), (PG_BUSY, Class::Transient), "{error:?}");
    let _one = endpoint.replicate("test").await.unwrap();
    let error = endpoint.replicate("test").await.unwrap_err();
    assert_eq!((error.code, error.class), (PG_BUSY, Class::Transient), "{error:?}");
}
