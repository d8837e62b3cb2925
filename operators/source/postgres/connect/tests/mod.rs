//! Against a real PostgreSQL, and against servers that lie.

mod certificates;
mod hostile;
mod login;
mod resolve;
mod streaming;
mod tls;

use super::settings::{ConnectSettings, Surroundings};
use super::{Endpoint, TlsMode, TlsSettings};
use crate::contract::{Code, CodedError};
use crate::testing::postgres::Postgres;
use secrecy::SecretString;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

/// Settings for a server's TCP port at `host`.
fn settings(postgres: &Postgres, host: &str, user: &str) -> ConnectSettings {
    ConnectSettings {
        host: Some(host.into()),
        port: Some(postgres.port()),
        user: Some(user.into()),
        database: Some("postgres".into()),
        ..ConnectSettings::default()
    }
}

/// An endpoint without anything of this machine's own.
fn endpoint(settings: &ConnectSettings) -> Result<Endpoint, CodedError> {
    settings.resolve_in(Path::new("/"), &Surroundings::default())
}

/// Connects in both ways; whether with TLS, or the code. Both must agree.
async fn connect(settings: &ConnectSettings) -> Result<bool, Code> {
    let endpoint = endpoint(settings).map_err(|error| error.code)?;
    let ssl = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let query = match endpoint.query("test").await {
        Ok(client) => Ok(client.query_one(ssl, &[]).await.unwrap().get::<_, &str>(0) == "true"),
        Err(error) => Err(error),
    };
    let replication = match endpoint.replicate("test").await {
        Ok(mut replication) => Ok(replication.simple_query(ssl).await.unwrap() == [[Some("true".to_owned())]]),
        Err(error) => Err(error),
    };
    match (query, replication) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one, other);
            Ok(one)
        }
        (Err(one), Err(other)) => {
            for error in [&one, &other] {
                assert!(!error.report().contains("wrong-secret"), "{error:?}");
                assert!(error.message.contains("connecting to"), "{error:?}");
            }
            assert_eq!(one.code, other.code, "{one:?}\n{other:?}");
            Err(one.code)
        }
        (one, other) => panic!("the two ways differ: {:?} {:?}", one.err(), other.err()),
    }
}

/// Puts a file into the data folder as the server's own.
fn put(postgres: &Postgres, name: &str, content: &[u8]) {
    let path = postgres.data().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(postgres.data()).unwrap();
    let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
}

/// Has the server read its files again, and waits until new connections see them.
async fn reload(postgres: &Postgres) {
    let loaded = || async {
        postgres.client("postgres").await.query_one("SELECT pg_conf_load_time()::text", &[]).await.unwrap().get::<_, String>(0)
    };
    let before = loaded().await;
    postgres.client("postgres").await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while loaded().await == before {
        assert!(Instant::now() < deadline, "the server did not read its files again: {}", postgres.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn secret(text: &str) -> Option<SecretString> {
    Some(SecretString::from(text))
}

fn tls(mode: TlsMode, ca_file: Option<&Path>) -> TlsSettings {
    TlsSettings { mode: Some(mode), ca_file: ca_file.map(Path::to_owned), ..TlsSettings::default() }
}
