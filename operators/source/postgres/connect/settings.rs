//! What a connection is made of: from settings, a connection string, the password file and libpq's folder to an
//! [`Endpoint`].
//!
//! Each thing is given once: a setting and the same option of the connection string together are an error, never
//! a silent preference. Of the environment only files are taken, where nothing names them: `PGPASSFILE`,
//! `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`. Not `PGHOST`, `PGUSER`, `PGPASSWORD` and the like: one process
//! connects to many servers, and a password is not for all of them.

use super::conninfo;
use super::endpoint::{Endpoint, Host};
use super::error::settings;
use super::options::Options;
use super::passfile;
use super::socket::Keepalive;
use super::tls::{Files, Roots, Tls};
use crate::contract::CodedError;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// Keys of [`Endpoint::identity`]; two, since 64 bits are few where whoever shares them shares a session.
static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
/// How long one address may take, from the first packet to the first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// PostgreSQL's port.
const PORT: u16 = 5432;
/// Folders of unix sockets that the password file calls `localhost`.
const SOCKET_FOLDERS: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// How much TLS is asked for (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server offers it. Protects from nobody who can change packets.
    Prefer,
    /// Always; whose certificate it is does not matter, unless there is a file of authorities.
    Require,
    /// Always, with a certificate of a trusted authority, for whatever host.
    VerifyCa,
    /// Always, with a certificate of a trusted authority for this host.
    VerifyFull,
}

/// The words of [`TlsMode`].
const TLS_MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// TLS towards PostgreSQL. Connections through a unix socket never use it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsSettings {
    /// How much is asked for: `disable`, `allow`, `prefer` (the default), `require`, `verify-ca`, `verify-full`.
    pub(crate) mode: Option<TlsMode>,
    /// PEM file of the authorities to trust. Default: `PGSSLROOTCERT`, `~/.postgresql/root.crt` if it exists, else
    /// the system's. When one of the first three is there, every mode that uses TLS checks the certificate.
    pub(crate) ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate and those between it and its authority. Default: `PGSSLCERT`,
    /// `~/.postgresql/postgresql.crt` if it exists.
    pub(crate) cert_file: Option<PathBuf>,
    /// PEM file of the certificate's key, without a passphrase, readable by its owner alone. Default: `PGSSLKEY`,
    /// `~/.postgresql/postgresql.key`.
    pub(crate) key_file: Option<PathBuf>,
}

/// Which server of several will do (libpq's `target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TargetSession {
    /// The first that answers.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
    /// A standby, else any.
    PreferStandby,
}

/// Everything a connection can be told. All optional but a user; what is absent has libpq's default, except that
/// the host is then `localhost` over TCP.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectSettings {
    /// `postgres://…`, `postgresql://…` or libpq's `key=value …`.
    pub(crate) url: Option<SecretString>,
    /// Name, address or folder of a unix socket; several with commas.
    pub(crate) host: Option<String>,
    /// Port, for every host.
    pub(crate) port: Option<u16>,
    /// Database; default: named as the user.
    pub(crate) database: Option<String>,
    /// User. Never that of the operating system.
    pub(crate) user: Option<String>,
    /// Password; default: the password file's.
    pub(crate) password: Option<SecretString>,
    /// TLS.
    pub(crate) tls: TlsSettings,
    /// How long one address may take until the session is ready; default 30 s.
    pub(crate) connect_timeout: Option<Duration>,
    /// How long a silent peer is left alone before TCP keepalives; default 60 s, then six every 10 s.
    pub(crate) keepalive: Option<Duration>,
    /// First part of the `application_name`; default `etl-stream`.
    pub(crate) application_name: Option<String>,
    /// Command-line options for the server, such as `-c work_mem=64MB`.
    pub(crate) options: Option<String>,
    /// Which server of several will do.
    pub(crate) target_session_attrs: Option<TargetSession>,
}

/// What is taken from the process's surroundings.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) home: Option<PathBuf>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) root_cert: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Surroundings {
    fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            home: path("HOME"),
            passfile: path("PGPASSFILE"),
            root_cert: path("PGSSLROOTCERT"),
            cert: path("PGSSLCERT"),
            key: path("PGSSLKEY"),
        }
    }

    /// A file of `~/.postgresql` if it exists.
    fn own(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".postgresql").join(name)).filter(|path| path.exists())
    }
}

impl ConnectSettings {
    /// Puts everything together and reads the password and TLS files; no network. Relative paths start at
    /// `folder`. Files are read now: resolve again to see them renewed.
    ///
    /// # Errors
    /// `PG0007` when settings contradict each other or are not known, `PG0004` when a TLS file is not readable.
    pub(crate) fn resolve(&self, folder: &Path) -> Result<Endpoint, CodedError> {
        self.resolve_in(folder, &Surroundings::of_process())
    }

    /// The same with given surroundings.
    pub(super) fn resolve_in(&self, folder: &Path, surroundings: &Surroundings) -> Result<Endpoint, CodedError> {
        let mut options = self.merged()?;
        let mut identity = KEYS.each_ref().map(BuildHasher::build_hasher);
        for part in &mut identity {
            // Files may say something else by now than when a session was made; that they do for any session that lasts.
            (&options, self.connect_timeout, self.keepalive, self.target_session_attrs, folder).hash(part);
        }
        let user = options.take("user").ok_or_else(|| settings("no user is given").hint("set `user`, or write it into the URL"))?;
        let database = options.take("dbname").unwrap_or_else(|| user.clone());
        let mut hosts = hosts(&mut options)?;
        let password = options.take("password").map(SecretString::from);
        let file = options.take("passfile").map(|path| folder.join(path)).or_else(|| surroundings.passfile.clone());
        let file = file.or_else(|| surroundings.home.as_ref().map(|home| home.join(".pgpass")));
        for host in &mut hosts {
            let name = if SOCKET_FOLDERS.contains(&host.name.as_str()) { "localhost" } else { &host.name };
            host.password =
                password.clone().or_else(|| file.as_ref().and_then(|file| passfile::find(file, name, host.port, &database, &user)));
            for part in &mut identity {
                host.password.as_ref().map(ExposeSecret::expose_secret).hash(part);
            }
        }
        let timeout = options.number::<i32>("connect_timeout")?.map(|count| u64::try_from(count).unwrap_or(0));
        let timeout = self.connect_timeout.or(timeout.map(|count| if count == 0 { Duration::MAX } else { Duration::from_secs(count) }));
        let tls = self.tls(&mut options, folder, surroundings)?;
        let application = options.take("application_name").or_else(|| options.take("fallback_application_name"));
        if let Some(encoding) =
            options.take("client_encoding").filter(|text| !["auto", "utf8", "utf-8"].contains(&text.to_lowercase().as_str()))
        {
            let _ = encoding;
            return Err(settings("option \"client_encoding\" must be UTF8 or absent"));
        }
        options.word("gssencmode", &[("disable", ()), ("prefer", ())])?;
        Ok(Endpoint {
            hosts,
            user,
            database,
            application: application.unwrap_or_else(|| "etl-stream".into()),
            options: options.take("options"),
            timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
            keepalive: self.keepalive(&mut options)?,
            tls,
            require_binding: options
                .word("channel_binding", &[("disable", None), ("prefer", Some(false)), ("require", Some(true))])?
                .unwrap_or(Some(false)),
            target: target(self.target_session_attrs, &mut options)?,
            shuffle: options.word("load_balance_hosts", &[("disable", false), ("random", true)])?.unwrap_or(false),
            identity: identity.iter().fold(0, |identity, part| identity << 64 | u128::from(part.finish())),
        })
    }

    /// The options of the connection string and those beside it.
    fn merged(&self) -> Result<Options, CodedError> {
        let mut options = match &self.url {
            Some(url) => Options::of(conninfo::parse(url.expose_secret())?)?,
            None => Options::default(),
        };
        let port = self.port.map(|port| port.to_string());
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mode = self.tls.mode.and_then(|mode| TLS_MODES.iter().find(|(_, known)| *known == mode)).map(|(word, _)| (*word).to_owned());
        let password = self.password.as_ref().map(|secret| secret.expose_secret().to_owned());
        for (name, setting, value) in [
            ("host", "host", self.host.clone()),
            ("port", "port", port),
            ("dbname", "database", self.database.clone()),
            ("user", "user", self.user.clone()),
            ("password", "password", password),
            ("application_name", "application_name", self.application_name.clone()),
            ("options", "options", self.options.clone()),
            ("sslmode", "tls.mode", mode),
            ("sslrootcert", "tls.ca_file", path(&self.tls.ca_file)),
            ("sslcert", "tls.cert_file", path(&self.tls.cert_file)),
            ("sslkey", "tls.key_file", path(&self.tls.key_file)),
        ] {
            if let Some(value) = value {
                options.put(name, value, &format!("the setting `{setting}`"))?;
            }
        }
        Ok(options)
    }

    fn keepalive(&self, options: &mut Options) -> Result<Keepalive, CodedError> {
        let default = Keepalive::default();
        let count = options.number("keepalives_count")?.or(options.number("keepalives_retries")?);
        Ok(Keepalive {
            on: options.word("keepalives", &[("0", false), ("1", true)])?.unwrap_or(true),
            idle: self.keepalive.or(options.seconds("keepalives_idle")?).unwrap_or(default.idle),
            interval: options.seconds("keepalives_interval")?.unwrap_or(default.interval),
            count: count.filter(|count| *count > 0).unwrap_or(default.count),
            user_timeout: options.number("tcp_user_timeout")?.filter(|millis| *millis > 0).map(Duration::from_millis),
        })
    }

    fn tls(&self, options: &mut Options, folder: &Path, surroundings: &Surroundings) -> Result<Tls, CodedError> {
        let given = options.word("sslmode", &TLS_MODES)?;
        let versions = [("TLSv1", 0_u8), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
        let oldest = options.word("ssl_min_protocol_version", &versions)?.unwrap_or(2);
        let newest = options.word("ssl_max_protocol_version", &versions)?.unwrap_or(3);
        if newest < 2 || oldest > newest {
            return Err(settings("the TLS versions allowed leave none of 1.2 and 1.3"));
        }
        // Compression is gone from TLS, and the name is always sent.
        options.word("sslcompression", &[("0", ()), ("1", ())])?;
        options.word("sslsni", &[("1", ())])?;
        let direct = options.word("sslnegotiation", &[("postgres", false), ("direct", true)])?.unwrap_or(false);
        let root = options.take("sslrootcert");
        let system = root.as_deref() == Some("system");
        let weak = matches!(given, Some(mode) if mode != TlsMode::VerifyFull);
        if system && weak {
            return Err(settings("sslrootcert=system needs sslmode=verify-full: anyone can have a certificate of a public authority"));
        }
        let mode = given.unwrap_or(if system { TlsMode::VerifyFull } else { TlsMode::Prefer });
        if direct && matches!(mode, TlsMode::Allow | TlsMode::Prefer) {
            return Err(settings("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"));
        }
        let roots = match root {
            Some(_) if system => Roots::System,
            Some(path) => Roots::File(folder.join(path)),
            None => surroundings.root_cert.clone().or_else(|| surroundings.own("root.crt")).map_or(Roots::Default, Roots::File),
        };
        let with_certificate = options.word("sslcertmode", &[("disable", false), ("allow", true), ("require", true)])?.unwrap_or(true);
        let certificate = options.take("sslcert").map(|path| folder.join(path)).or_else(|| surroundings.cert.clone());
        let certificate = certificate.or_else(|| surroundings.own("postgresql.crt")).filter(|_| with_certificate);
        let key = options.take("sslkey").map(|path| folder.join(path)).or_else(|| surroundings.key.clone());
        let key = key.or_else(|| surroundings.own("postgresql.key"));
        if certificate.is_some() && key.is_none() {
            return Err(settings("a client certificate is given without its key").hint("set `tls.key_file`"));
        }
        Tls::new(mode, direct, Files { roots, client: certificate.zip(key), oldest, newest })
    }
}

fn target(given: Option<TargetSession>, options: &mut Options) -> Result<TargetSession, CodedError> {
    let words = [
        ("any", TargetSession::Any),
        ("read-write", TargetSession::ReadWrite),
        ("read-only", TargetSession::ReadOnly),
        ("primary", TargetSession::Primary),
        ("standby", TargetSession::Standby),
        ("prefer-standby", TargetSession::PreferStandby),
    ];
    match (given, options.word("target_session_attrs", &words)?) {
        (Some(_), Some(_)) => Err(settings("option \"target_session_attrs\" is given twice").hint("keep one of them")),
        (given, option) => Ok(given.or(option).unwrap_or_default()),
    }
}

/// Names, addresses and ports, side by side.
fn hosts(options: &mut Options) -> Result<Vec<Host>, CodedError> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map(|text| text.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (mut names, addresses, ports) = (list(options.take("host")), list(options.take("hostaddr")), list(options.take("port")));
    if names.is_empty() {
        names = if addresses.is_empty() { vec!["localhost".into()] } else { addresses.clone() };
    }
    if !addresses.is_empty() && addresses.len() != names.len() {
        return Err(settings(format!("{} hosts are given and {} values of \"hostaddr\"", names.len(), addresses.len())));
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(settings(format!("{} hosts are given and {} ports", names.len(), ports.len())));
    }
    let host = |(at, name): (usize, String)| {
        let port = match ports.get(if ports.len() == 1 { 0 } else { at }).map_or("", String::as_str) {
            "" => PORT,
            text => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| settings("a port is not a number from 1 to 65535"))?,
        };
        let address = match addresses.get(at).map_or("", String::as_str) {
            "" => None,
            text => Some(text.parse().map_err(|_| settings("a value of \"hostaddr\" is not an IP address"))?),
        };
        Ok(Host { name: if name.is_empty() { "localhost".into() } else { name }, address, port, password: None })
    };
    names.into_iter().enumerate().map(host).collect()
}
