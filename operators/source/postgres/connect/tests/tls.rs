//! Which modes take which servers, and the binding of SCRAM to TLS.

use super::super::{PG_AUTHENTICATION, PG_SETTINGS, PG_TLS, TlsMode, TlsSettings};
use super::certificates::{Authority, ELLIPTIC, RSA, Request};
use super::{connect, endpoint, put, reload, secret, settings, tls};
use crate::testing::postgres::Postgres;

const HBA: &str = "
local     all all             trust
hostssl   all tls_only        127.0.0.1/32 scram-sha-256
hostnossl all plain_only      127.0.0.1/32 scram-sha-256
hostssl   all certified       127.0.0.1/32 cert
host      all postgres        127.0.0.1/32 trust
";

#[tokio::test]
async fn modes_and_certificates() {
    use TlsMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let postgres = Postgres::start();
    let client = postgres.client("postgres").await;
    for user in ["tls_only", "plain_only", "certified"] {
        client.batch_execute(&format!("CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'right'")).await.unwrap();
    }
    let own = Authority::new();
    let other = Authority::new();
    let (ca, other_ca) = (own.path("ca.crt"), other.path("ca.crt"));
    own.sign(&Request { name: "server", key: ELLIPTIC, sign: &[], common_name: "elsewhere", extensions: "subjectAltName=DNS:localhost" });
    own.sign(&Request { name: "common", key: RSA, sign: &["-sha384"], common_name: "localhost", extensions: "basicConstraints=CA:FALSE" });
    own.self_signed("alone", ELLIPTIC, "localhost");
    own.self_signed("pss", &[RSA, &["-sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64"]].concat(), "localhost");
    own.sign(&Request { name: "client", key: ELLIPTIC, sign: &[], common_name: "certified", extensions: "basicConstraints=CA:FALSE" });

    let root = "postgres";
    for (mode, expected) in
        [(Disable, Ok(false)), (Allow, Ok(false)), (Prefer, Ok(false)), (Require, Err(PG_TLS)), (VerifyFull, Err(PG_TLS))]
    {
        let mut settings = settings(&postgres, "localhost", root);
        settings.tls = tls(mode, Some(&ca));
        assert_eq!(connect(&settings).await, expected, "a server without TLS, {mode:?}");
    }

    put(&postgres, "pg_hba.conf", HBA.as_bytes());
    put(&postgres, "root.crt", &own.read("ca.crt"));
    let serve = async |name: &str| {
        put(&postgres, "server.crt", &own.read(&format!("{name}.crt")));
        put(&postgres, "server.key", &own.read(&format!("{name}.key")));
        put(&postgres, "postgresql.auto.conf", b"ssl = on\nssl_ca_file = 'root.crt'\n");
        reload(&postgres).await;
    };
    serve("server").await;
    for (mode, ca_file, host, user, expected) in [
        (Disable, None, "localhost", root, Ok(false)),
        (Allow, None, "localhost", root, Ok(false)),
        (Prefer, None, "localhost", root, Ok(true)),
        (Require, None, "127.0.0.1", root, Ok(true)),
        (Require, Some(&ca), "127.0.0.1", root, Ok(true)),
        (Require, Some(&other_ca), "localhost", root, Err(PG_TLS)),
        (Prefer, Some(&other_ca), "localhost", root, Err(PG_TLS)),
        (VerifyCa, Some(&ca), "127.0.0.1", root, Ok(true)),
        (VerifyCa, Some(&other_ca), "localhost", root, Err(PG_TLS)),
        (VerifyCa, None, "localhost", root, Err(PG_TLS)),
        (VerifyFull, Some(&ca), "localhost", root, Ok(true)),
        (VerifyFull, Some(&ca), "127.0.0.1", root, Err(PG_TLS)),
        (VerifyFull, Some(&other_ca), "localhost", root, Err(PG_TLS)),
        (Disable, None, "localhost", "tls_only", Err(PG_AUTHENTICATION)),
        (Allow, None, "localhost", "tls_only", Ok(true)),
        (Prefer, None, "localhost", "tls_only", Ok(true)),
        (Prefer, None, "localhost", "plain_only", Ok(false)),
        (Require, None, "localhost", "plain_only", Err(PG_AUTHENTICATION)),
        (Require, None, "localhost", "certified", Err(PG_AUTHENTICATION)),
    ] {
        let mut settings = settings(&postgres, host, user);
        settings.password = secret("right");
        settings.tls = tls(mode, ca_file.map(std::path::PathBuf::as_path));
        assert_eq!(connect(&settings).await, expected, "{mode:?} {ca_file:?} {host} {user}");
    }

    let mut certified = settings(&postgres, "localhost", "certified");
    certified.tls =
        TlsSettings { cert_file: Some(own.path("client.crt")), key_file: Some(own.path("client.key")), ..tls(VerifyFull, Some(&ca)) };
    assert_eq!(connect(&certified).await, Ok(true));
    certified.tls.key_file = Some(own.path("server.key"));
    assert_eq!(connect(&certified).await, Err(PG_TLS), "another certificate's key");
    certified.tls.key_file = None;
    assert_eq!(connect(&certified).await, Err(PG_SETTINGS), "no key");

    // A socket of the file system never has TLS.
    let folder = postgres.data().parent().unwrap().display().to_string();
    let mut unix = settings(&postgres, &folder, root);
    unix.tls = tls(VerifyFull, Some(&ca));
    assert_eq!(connect(&unix).await, Ok(false));

    // Channel binding, with the server as the judge of the hash; a name only in CN; a certificate that is its own authority.
    for (name, ca_file) in [("server", "ca.crt"), ("common", "ca.crt"), ("alone", "alone.crt"), ("pss", "pss.crt")] {
        serve(name).await;
        let mut settings = settings(&postgres, "localhost", "tls_only");
        settings.tls = tls(VerifyFull, Some(&own.path(ca_file)));
        settings.password = secret("right");
        settings.url = secret("postgres://?channel_binding=require");
        assert_eq!(connect(&settings).await, Ok(true), "{name}");
        settings.password = secret("wrong-secret");
        assert_eq!(connect(&settings).await, Err(PG_AUTHENTICATION), "{name}");
    }
    let mut unbound = settings(&postgres, "localhost", root);
    unbound.url = secret("postgres://?channel_binding=require");
    assert_eq!(connect(&unbound).await, Err(PG_AUTHENTICATION), "trust has no channel binding");

    // Direct TLS needs PostgreSQL 17; an older server ends the connection.
    let mut direct = settings(&postgres, "localhost", root);
    direct.url = secret("postgres://?sslnegotiation=direct&sslmode=require");
    let major = endpoint(&settings(&postgres, "localhost", root)).unwrap().replicate("test").await.unwrap().server_major();
    assert_eq!(connect(&direct).await.is_ok(), major >= 17);
}
