//! What settings come to, without a network.

use super::super::settings::Surroundings;
use super::super::*;
use super::{endpoint, secret};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn of_url(url: &str) -> Result<Endpoint, String> {
    endpoint(&ConnectSettings { url: secret(url), ..ConnectSettings::default() }).map_err(|error| {
        assert_eq!(error.code, PG_SETTINGS, "{error:?}");
        assert!(!error.report().contains("hunter2"), "{error:?}");
        error.message
    })
}

#[test]
fn urls() {
    for (url, expected) in [
        ("postgres://u@h/d", "h:5432/d as u"),
        ("postgres://u@h", "h:5432/u as u"),
        ("postgres://u@/d", "localhost:5432/d as u"),
        ("postgres://u@a:1,b:2/d", "a:1,b:2/d as u"),
        ("postgres://u@a,b/d?port=7", "a:7,b:7/d as u"),
        ("postgres://u@[::1]:5433/d", "[::1]:5433/d as u"),
        ("postgres://u@%2Ftmp/d", "/tmp:5432/d as u"),
        ("host=h hostaddr=10.0.0.1 user=u dbname=d", "h:5432/d as u"),
        ("hostaddr=10.0.0.1,10.0.0.2 user=u dbname=d", "10.0.0.1:5432,10.0.0.2:5432/d as u"),
        (
            "postgres://u:hunter2@h/d?keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=1000&\
             connect_timeout=5&client_encoding=UTF8&gssencmode=prefer&load_balance_hosts=random&channel_binding=disable&sslsni=1&\
             ssl_min_protocol_version=TLSv1.3&fallback_application_name=x&target_session_attrs=primary",
            "h:5432/d as u",
        ),
    ] {
        assert_eq!(of_url(url).map(|endpoint| endpoint.to_string()).as_deref(), Ok(expected), "{url}");
    }
    for (url, part) in [
        ("postgres://:hunter2@h/d", "no user"),
        ("postgres://u:hunter2@h/d?sslmod=require", "\"sslmod\""),
        ("postgres://u:hunter2@h/d?hunter2%20x=1", "an option"),
        ("postgres://u:hunter2@h/d?sslmode=maybe", "\"sslmode\""),
        ("postgres://u:hunter2@h/d?sslcrl=x", "\"sslcrl\""),
        ("postgres://u:hunter2@h/d?user=v", "\"user\" is given twice"),
        ("postgres://u:hunter2@h:port/d", "a port"),
        ("postgres://u:hunter2@h:70000/d", "a port"),
        ("postgres://u:hunter2@h:0/d", "a port"),
        ("postgres://u:hunter2@a:1,b:2/d?port=3", "\"port\" is given twice"),
        ("postgres://u:hunter2@a,b/d?port=1,2,3", "2 hosts are given and 3 ports"),
        ("postgres://u:hunter2@a,b/d?hostaddr=::1", "\"hostaddr\""),
        ("postgres://u:hunter2@a/d?hostaddr=x", "\"hostaddr\""),
        ("postgres://u:hunter2@h/d?connect_timeout=soon", "\"connect_timeout\""),
        ("postgres://u:hunter2@h/d?client_encoding=LATIN1", "\"client_encoding\""),
        ("postgres://u:hunter2@h/d?sslnegotiation=direct", "sslnegotiation=direct"),
        ("postgres://u:hunter2@h/d?sslrootcert=system&sslmode=require", "verify-full"),
        ("postgres://u:hunter2@h/d?ssl_max_protocol_version=TLSv1.1", "TLS versions"),
    ] {
        let error = of_url(url).map(|endpoint| endpoint.to_string()).expect_err(url);
        assert!(error.contains(part), "{url}: {error}");
    }
}

#[test]
fn nothing_is_given_twice() {
    let url = secret("postgres://u:hunter2@h:1/d?sslmode=require&application_name=a&options=-cx=y&target_session_attrs=any");
    let base = ConnectSettings { url, ..ConnectSettings::default() };
    assert!(endpoint(&base).is_ok());
    for settings in [
        ConnectSettings { host: Some("x".into()), ..base.clone() },
        ConnectSettings { port: Some(2), ..base.clone() },
        ConnectSettings { database: Some("x".into()), ..base.clone() },
        ConnectSettings { user: Some("x".into()), ..base.clone() },
        ConnectSettings { password: secret("x"), ..base.clone() },
        ConnectSettings { options: Some("x".into()), ..base.clone() },
        ConnectSettings { application_name: Some("x".into()), ..base.clone() },
        ConnectSettings { target_session_attrs: Some(TargetSession::Any), ..base.clone() },
        ConnectSettings { tls: TlsSettings { mode: Some(TlsMode::Require), ..TlsSettings::default() }, ..base.clone() },
    ] {
        let error = endpoint(&settings).unwrap_err();
        assert!(error.code == PG_SETTINGS && error.message.contains("given twice"), "{error}");
        assert!(!format!("{settings:?}{}", error.report()).contains("hunter2"));
    }
}

#[test]
fn files_of_the_user() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let user = ConnectSettings { url: secret("postgres://u@h/d"), ..ConnectSettings::default() };
    let around = Surroundings { home: Some(home.path().to_owned()), ..Surroundings::default() };
    let password = |around: &Surroundings| user.resolve_in(Path::new("/"), around).unwrap().hosts[0].password.is_some();
    std::fs::write(path(".pgpass"), "h:5432:d:u:x").unwrap();
    assert!(!password(&around), "others can read it");
    std::fs::set_permissions(path(".pgpass"), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(password(&around));
    assert!(!password(&Surroundings { passfile: Some(path("other")), ..around.clone() }), "PGPASSFILE goes before");

    std::fs::create_dir(path(".postgresql")).unwrap();
    std::fs::write(path(".postgresql/root.crt"), "no certificate").unwrap();
    let error = user.resolve_in(Path::new("/"), &around).unwrap_err();
    assert!(error.code == PG_TLS && error.message.contains("root.crt"), "{error}");
    let missing = Surroundings { root_cert: Some(path("missing.crt")), ..around.clone() };
    let error = user.resolve_in(Path::new("/"), &missing).unwrap_err();
    assert!(error.code == PG_TLS && error.message.contains("missing.crt"), "{error}");
    let off = ConnectSettings { url: secret("postgres://u@h/d?sslmode=disable"), ..ConnectSettings::default() };
    assert!(off.resolve_in(Path::new("/"), &around).is_ok(), "files of TLS are not read without it");

    let settings: TlsSettings = serde_json::from_str(r#"{"mode":"verify-full","ca_file":"ca.crt"}"#).unwrap();
    assert_eq!(settings.mode, Some(TlsMode::VerifyFull));
    assert!(serde_json::from_str::<TlsSettings>(r#"{"mod":"require"}"#).is_err());
    assert!(serde_json::from_str::<TlsSettings>(r#"{"mode":"VerifyFull"}"#).is_err());
    let relative = ConnectSettings { tls: settings, ..user.clone() };
    let error = relative.resolve_in(home.path(), &Surroundings::default()).unwrap_err();
    assert!(error.message.contains(&path("ca.crt").display().to_string()), "{error}");
}
