//! An address to connect to, and the one way to a session there: hosts, addresses, TLS, who we are, settings.
//!
//! As libpq does, the next host is tried when one is unreachable or takes no connections, and not when it
//! rejects us. `prefer` goes on without TLS when the handshake fails or pg_hba.conf wants none.

use super::authentication::Login;
use super::ending::Ending;
use super::error::{PG_AUTHENTICATION, PG_BUSY, PG_LOST, PG_TLS, PG_UNREACHABLE, Stage, at_stage, broken, sqlstate};
use super::replication::Replication;
use super::session;
use super::settings::TargetSession;
use super::socket::{Encrypted, Keepalive, NoTls, Socket, encrypt};
use super::tls::Tls;
use super::wire::Wire;
use crate::contract::{Class, CodedError, Permit};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::{Client, SimpleQueryMessage};

/// One of the hosts.
pub(super) struct Host {
    /// Name, address, or folder of a unix socket.
    pub(super) name: String,
    /// Where it is, without asking.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) password: Option<SecretString>,
}

impl Host {
    fn label(&self) -> String {
        if self.name.contains(':') { format!("[{}]:{}", self.name, self.port) } else { format!("{}:{}", self.name, self.port) }
    }
}

/// A server (or several of which one will do), a database and a user. Cheap to keep; connects anew each time.
pub(crate) struct Endpoint {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application: String,
    pub(super) options: Option<String>,
    pub(super) timeout: Duration,
    pub(super) keepalive: Keepalive,
    pub(super) tls: Tls,
    /// Channel binding: never, where possible, always.
    pub(super) require_binding: Option<bool>,
    pub(super) target: TargetSession,
    pub(super) shuffle: bool,
    /// What all of it comes to, for this process alone: equal where everything is.
    pub(super) identity: u128,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// `host:port/database as user`, for messages.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} as {}", self.host_label(), self.database, self.user)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query,
    Copy,
    Replication,
}

/// A session that is ready.
enum Ready {
    /// With its task, and a second handle of its socket.
    Query(Client, JoinHandle<()>, Option<socket2::Socket>),
    Replication(Box<Replication>),
}

/// Where a socket is opened.
#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    /// Host and port, all of them, with commas.
    pub(crate) fn host_label(&self) -> String {
        self.hosts.iter().map(Host::label).collect::<Vec<_>>().join(",")
    }

    /// A word that two endpoints have in common only if sessions of one are as good as the other's: hosts, database, user,
    /// password and settings are the same. It says nothing of them, and is another in each process.
    pub(crate) fn identity(&self) -> u128 {
        self.identity
    }

    /// The database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The user.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Connects for statements, as `etl-stream <purpose>`. The connection's task ends with the client.
    ///
    /// # Errors
    /// `PG0001` to `PG0005`, `PG0007`.
    pub(crate) async fn query(&self, purpose: &str) -> Result<Client, CodedError> {
        match Box::pin(self.open(purpose, Kind::Query)).await? {
            Ready::Query(client, ..) => Ok(client),
            Ready::Replication(_) => unreachable!("each kind opens its own"),
        }
    }

    /// The same within the process's budget: the permit is given back when the server has closed its end too.
    ///
    /// # Errors
    /// As [`Endpoint::query`].
    pub(crate) async fn query_within(&self, permit: Permit, purpose: &str) -> Result<Client, CodedError> {
        match Box::pin(self.open(purpose, Kind::Query)).await? {
            Ready::Query(client, closed, socket) => {
                let ending = Ending::new(permit, socket);
                tokio::spawn(async move {
                    let _ = closed.await;
                    drop(ending);
                });
                Ok(client)
            }
            Ready::Replication(_) => unreachable!("each kind opens its own"),
        }
    }

    /// Connects for `COPY … TO STDOUT`, as `etl-stream <purpose>`: as [`Endpoint::query`], with bytes read as they come.
    ///
    /// # Errors
    /// `PG0001` to `PG0005`, `PG0007`.
    pub(crate) async fn copy(&self, purpose: &str) -> Result<Replication, CodedError> {
        match Box::pin(self.open(purpose, Kind::Copy)).await? {
            Ready::Replication(copy) => Ok(*copy),
            Ready::Query(..) => unreachable!("each kind opens its own"),
        }
    }

    /// The same within the process's budget: the permit is given back when the connection is closed.
    ///
    /// # Errors
    /// As [`Endpoint::copy`].
    pub(crate) async fn copy_within(&self, permit: Permit, purpose: &str) -> Result<Replication, CodedError> {
        Ok(self.copy(purpose).await?.within(permit))
    }

    /// Connects as a walsender of the database (`replication=database`), as `etl-stream <purpose>`.
    ///
    /// # Errors
    /// `PG0001` to `PG0005`, `PG0007`, `PG0008`.
    pub(crate) async fn replicate(&self, purpose: &str) -> Result<Replication, CodedError> {
        match Box::pin(self.open(purpose, Kind::Replication)).await? {
            Ready::Replication(replication) => Ok(*replication),
            Ready::Query(..) => unreachable!("each kind opens its own"),
        }
    }

    /// Tries host after host.
    async fn open(&self, purpose: &str, kind: Kind) -> Result<Ready, CodedError> {
        let mut failures: Vec<CodedError> = Vec::new();
        let targets: &[TargetSession] = match self.target {
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
            ref one => std::slice::from_ref(one),
        };
        let mut hosts: Vec<&Host> = self.hosts.iter().collect();
        if self.shuffle {
            let random = RandomState::new();
            hosts.sort_by_cached_key(|host| random.hash_one(host.label()));
        }
        for target in targets {
            for host in &hosts {
                match self.open_host(host, *target, purpose, kind).await {
                    Ok(ready) => return Ok(ready),
                    Err(error) if [PG_UNREACHABLE, PG_BUSY, PG_LOST].contains(&error.code) => failures.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        let mut last = failures.pop().unwrap_or_else(|| CodedError::transient(PG_UNREACHABLE, format!("connecting to {self}: no host")));
        if !failures.is_empty() {
            let all: Vec<&str> = failures.iter().chain([&last]).map(|error| error.message.as_str()).collect();
            last.message = all.join("; ");
        }
        Err(last)
    }

    /// Tries each address of a host, with and without TLS.
    async fn open_host(&self, host: &Host, target: TargetSession, purpose: &str, kind: Kind) -> Result<Ready, CodedError> {
        let doing = format!("connecting to {}/{} as {}", host.label(), self.database, self.user);
        let mut failure = None;
        for place in self.places(host, &doing).await? {
            let ways = if matches!(place, Place::Unix(_)) { vec![None] } else { self.tls.ways() };
            let mut before: Option<String> = None;
            for (tried, way) in ways.iter().enumerate() {
                let attempt = Box::pin(self.attempt(host, place.clone(), way.clone(), target, purpose, kind, &doing));
                let result = tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
                    let error = io::Error::new(io::ErrorKind::TimedOut, format!("no session within {} s", self.timeout.as_secs()));
                    Err(Refusal { error: broken(&doing, Stage::Connecting { replication: false }, error), other_way: false })
                });
                match result {
                    Ok(ready) => return Ok(ready),
                    Err(refusal) => {
                        let mut error = refusal.error;
                        if let Some(first) = before.take() {
                            error.message = format!("{}; before that, with the other setting of TLS, {first}", error.message);
                        }
                        if refusal.other_way && tried + 1 < ways.len() {
                            before = Some(error.message);
                            continue;
                        }
                        if ![PG_UNREACHABLE, PG_BUSY].contains(&error.code) {
                            return Err(error);
                        }
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            let error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            broken(&doing, Stage::Connecting { replication: false }, error)
        }))
    }

    /// Where a host is.
    async fn places(&self, host: &Host, doing: &str) -> Result<Vec<Place>, CodedError> {
        if host.name.starts_with('/') {
            return Ok(vec![Place::Unix(Path::new(&host.name).join(format!(".s.PGSQL.{}", host.port)))]);
        }
        if let Some(address) = host.address {
            return Ok(vec![Place::Tcp(SocketAddr::new(address, host.port))]);
        }
        let found = tokio::time::timeout(self.timeout, tokio::net::lookup_host((host.name.as_str(), host.port))).await;
        let found = found.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the name service did not answer")));
        match found {
            Ok(addresses) => Ok(addresses.map(Place::Tcp).collect()),
            Err(error) => Err(broken(doing, Stage::Connecting { replication: false }, error)),
        }
    }

    /// One socket, one session.
    #[expect(clippy::too_many_arguments, reason = "one attempt of nested loops")]
    async fn attempt(
        &self,
        host: &Host,
        place: Place,
        tls: Option<Arc<ClientConfig>>,
        target: TargetSession,
        purpose: &str,
        kind: Kind,
        doing: &str,
    ) -> Result<Ready, Refusal> {
        let stage = Stage::Connecting { replication: kind == Kind::Replication };
        let lost = |error| Refusal { error: broken(doing, stage, error), other_way: false };
        let socket = match (place, tls) {
            (Place::Unix(path), _) => Socket::unix(&path).await.map_err(lost)?,
            (Place::Tcp(address), None) => Socket::Tcp(Socket::tcp(address, &self.keepalive).await.map_err(lost)?),
            (Place::Tcp(address), Some(config)) => {
                let tcp = Socket::tcp(address, &self.keepalive).await.map_err(lost)?;
                match encrypt(tcp, config, &host.name, self.tls.direct, doing).await {
                    Ok(socket) => socket,
                    Err(NoTls::NotOffered(tcp)) if self.tls.prefers() => Socket::Tcp(tcp),
                    Err(NoTls::NotOffered(_)) => {
                        let error = CodedError::definite(PG_TLS, format!("{doing}: the server does not offer TLS"))
                            .hint("turn `ssl` on at the server, or use `tls: { mode: prefer }` or `disable` where the network is trusted");
                        return Err(Refusal { error, other_way: false });
                    }
                    Err(NoTls::Handshake(error)) => return Err(Refusal { error, other_way: true }),
                    Err(NoTls::Final(error)) => return Err(Refusal { error, other_way: false }),
                }
            }
        };
        let application = format!("{} {purpose}", self.application);
        let ready = match kind {
            Kind::Query => self.start_query(socket, host, target, &application, doing).await,
            Kind::Copy | Kind::Replication => self.start_replication(socket, host, target, &application, kind, doing).await,
        };
        ready.map_err(|error| {
            let unwelcome = error.code == PG_AUTHENTICATION && sqlstate(&error) == Some("28000");
            Refusal { error, other_way: unwelcome }
        })
    }

    async fn start_query(
        &self,
        socket: Socket,
        host: &Host,
        target: TargetSession,
        application: &str,
        doing: &str,
    ) -> Result<Ready, CodedError> {
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(&self.database).application_name(application);
        // The socket is encrypted already where it is to be: nothing is left to agree on.
        config.ssl_mode(if socket.is_tls() { SslMode::Require } else { SslMode::Disable }).ssl_negotiation(SslNegotiation::Direct);
        config.channel_binding(match self.require_binding {
            None => ChannelBinding::Disable,
            Some(false) => ChannelBinding::Prefer,
            Some(true) => ChannelBinding::Require,
        });
        if let Some(options) = &self.options {
            config.options(options);
        }
        if let Some(password) = &host.password {
            config.password(password.expose_secret());
        }
        let stage = Stage::Connecting { replication: false };
        let coded = |error: tokio_postgres::Error| at_stage(&error, doing, stage);
        let second = socket.second();
        let (client, mut connection) = config.connect_raw(socket, Encrypted).await.map_err(coded)?;
        let major = session::major(connection.parameter("server_version").unwrap_or(""));
        // Notices are dropped here: tokio-postgres would log their text. An error is told to whoever waits.
        let closed = tokio::spawn(async move { while let Some(Ok(_)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {} });
        client.batch_execute(&session::statements(major, false)).await.map_err(coded)?;
        if target != TargetSession::Any {
            let rows = client.simple_query(session::ROLE).await.map_err(coded)?;
            let row = rows.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((row.get(0), row.get(1))),
                _ => None,
            });
            let (recovery, read_only) = row.unwrap_or((None, None));
            self.check_role(target, recovery, read_only, doing)?;
        }
        Ok(Ready::Query(client, closed, second))
    }

    async fn start_replication(
        &self,
        socket: Socket,
        host: &Host,
        target: TargetSession,
        application: &str,
        kind: Kind,
        doing: &str,
    ) -> Result<Ready, CodedError> {
        let mut parameters = vec![
            ("user", self.user.as_str()),
            ("database", self.database.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", application),
        ];
        if kind == Kind::Replication {
            parameters.push(("replication", "database"));
        }
        if let Some(options) = &self.options {
            parameters.push(("options", options));
        }
        let password = host.password.as_ref();
        let login = Login { user: &self.user, password, require_binding: self.require_binding, parameters, doing };
        let mut wire = Wire::new(socket);
        let session = login.start(&mut wire).await?;
        let place = format!("{}/{} as {}", host.label(), self.database, self.user);
        let mut replication = Replication::new(wire, session, place.into());
        let major = session::major(replication.parameter("server_version").unwrap_or(""));
        let part = |mut error: CodedError| {
            error.message = format!("{doing}: {}", error.message);
            error
        };
        replication.simple_query(&session::statements(major, kind == Kind::Replication)).await.map_err(part)?;
        if target != TargetSession::Any {
            let rows = replication.simple_query(session::ROLE).await.map_err(part)?;
            let cell = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
            self.check_role(target, cell(0), cell(1), doing)?;
        }
        Ok(Ready::Replication(Box::new(replication)))
    }

    fn check_role(&self, target: TargetSession, recovery: Option<&str>, read_only: Option<&str>, doing: &str) -> Result<(), CodedError> {
        session::suits(target, recovery, read_only).map_err(|what| CodedError {
            class: Class::Transient,
            ..CodedError::definite(PG_UNREACHABLE, format!("{doing}: the server is {what}, and target_session_attrs asks for another"))
        })
    }
}

/// Why an attempt failed.
struct Refusal {
    error: CodedError,
    /// Whether with TLS instead of without, or the other way round, the same address may do.
    other_way: bool,
}
