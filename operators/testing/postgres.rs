//! A real PostgreSQL server in a temporary folder, on a free port, as a non-root user.
//!
//! The server ends with the value, and with the thread that started it, so that it outlives no test that is
//! killed: start it on a thread that lives as long as it is needed. `initdb` runs once for each installation
//! and machine; later servers copy its result.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// Finds the folders of PostgreSQL's server programs: `ETL_STREAM_PG_BIN`, Debian's, those that
/// `make postgres` installed, and the search path; newest first.
#[must_use]
pub fn installations() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    if let Some(path) = std::env::var_os("ETL_STREAM_PG_BIN") {
        return vec![path.into()];
    }
    let npm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/postgres");
    for base in [Path::new("/usr/lib/postgresql"), &npm] {
        let mut versions: Vec<PathBuf> = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
        versions.retain(|bin| bin.join("postgres").exists() && bin.join("initdb").exists());
        versions.sort();
        versions.reverse();
        found.extend(versions);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).filter(|dir| dir.join("postgres").exists() && dir.join("initdb").exists()));
    found
}

/// A running server. Trusts every local connection as `postgres`.
pub struct Postgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    settings: Vec<String>,
    port: u16,
    server: Option<Child>,
}

/// The user the server runs as: it refuses root.
fn server_user() -> Option<(u32, u32)> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    #[expect(unsafe_code, reason = "libc call without preconditions")]
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    entry("postgres").or_else(|| entry("nobody"))
}

fn command(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

fn give_to_server(folder: &Path) {
    if let Some((user, group)) = server_user() {
        chown(folder, Some(user), Some(group)).expect("root may give its folders away");
    }
}

fn initdb(bin: &Path, data: &Path) {
    let output = command(bin.join("initdb"))
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(data)
        .output()
        .expect("initdb runs");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A data folder fresh from `initdb`, made once and kept.
fn template(bin: &Path) -> PathBuf {
    let name: String = bin.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let base = std::env::temp_dir().join(format!("etl-stream-initdb{name}"));
    let done = base.join("data/PG_VERSION");
    fs::create_dir_all(&base).expect("the temporary folder is writable");
    let lock = fs::File::create(base.with_extension("lock")).expect("the temporary folder is writable");
    lock.lock().expect("a lock can be waited for");
    if !done.exists() {
        let _ = fs::remove_dir_all(base.join("data"));
        let _ = fs::remove_dir_all(base.join("making"));
        give_to_server(&base);
        let making = base.join("making");
        initdb(bin, &making);
        fs::rename(making, base.join("data")).expect("a folder can be renamed");
    }
    base.join("data")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("own folder");
    give_to_server(to);
    for entry in fs::read_dir(from).expect("the template is readable").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a template file");
            give_to_server(&target);
        }
    }
}

impl Postgres {
    /// Starts a server of the newest installation with logical replication on.
    ///
    /// # Panics
    /// When no PostgreSQL is installed or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further settings, each `name=value`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let bin = installations().into_iter().next().expect("no PostgreSQL server found: run `make postgres`");
        Self::start_from(bin, settings)
    }

    /// Starts a server of a given installation.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn start_from(bin: PathBuf, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("etl-stream-pg").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
        give_to_server(folder.path());
        copy_folder(&template(&bin), &folder.path().join("data"));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port();
        let mut postgres = Self { bin, folder, settings: settings.iter().map(|s| (*s).to_owned()).collect(), port, server: None };
        postgres.resume();
        postgres
    }

    /// Starts a server that shares nothing with others: they are copies, and have one system identifier.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn start_unlike_others(settings: &[&str]) -> Self {
        let mut postgres = Self::start_with(settings);
        postgres.stop();
        let data = postgres.data();
        fs::remove_dir_all(&data).expect("the server has ended");
        initdb(&postgres.bin, &data);
        postgres.resume();
        postgres
    }

    /// Starts the server again after [`Postgres::stop`] or [`Postgres::kill`], on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let data = self.folder.path().join("data");
        let socket = self.folder.path().display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).expect("a log file");
        let mut command = command(self.bin.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &self.port.to_string()]);
        let fixed = [
            "wal_level=logical",
            "max_wal_senders=40",
            "max_replication_slots=40",
            "max_connections=120",
            "fsync=off",
            "listen_addresses=127.0.0.1",
            "shared_buffers=64MB",
        ];
        for setting in fixed
            .iter()
            .copied()
            .map(str::to_owned)
            .chain([format!("unix_socket_directories={socket}")])
            .chain(self.settings.iter().cloned())
        {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        #[expect(unsafe_code, reason = "prctl between fork and exec is async-signal-safe and touches no memory of ours")]
        // SAFETY: the closure makes one system call with constant arguments and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
                Ok(())
            });
        }
        self.server = Some(command.spawn().expect("postgres runs"));
        let deadline = Instant::now() + START;
        while !self.accepts() {
            let ended = self.server.as_mut().and_then(|s| s.try_wait().ok().flatten());
            assert!(ended.is_none() && Instant::now() < deadline, "postgres did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the server answers a start-up packet with a request to authenticate or a welcome.
    fn accepts(&self) -> bool {
        let Ok(mut socket) = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let body = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0";
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend_from_slice(body);
        let mut tag = [0];
        let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
        let accepted = socket.write_all(&packet).is_ok() && socket.read_exact(&mut tag).is_ok() && tag == *b"R";
        let _ = socket.write_all(b"X\0\0\0\x04");
        accepted
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder of its programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Connects to a database.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn client(&self, database: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.expect("the server accepts connections");
        tokio::spawn(connection);
        client
    }

    /// Makes a database and connects to it.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn database(&self, name: &str) -> Client {
        self.client("postgres").await.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await.expect("the database is new");
        self.client(name).await
    }

    fn signal(&mut self, signal: i32) {
        if let Some(mut server) = self.server.take() {
            // SAFETY: the process is our own unreaped child, so its id is not another's.
            #[expect(unsafe_code, reason = "the only way to send a signal other than SIGKILL")]
            unsafe {
                libc::kill(server.id() as i32, signal);
            }
            let _ = server.wait();
        }
    }

    /// Stops it in good order, ending connections (`fast` shutdown).
    pub fn stop(&mut self) {
        self.signal(libc::SIGINT);
    }

    /// Ends it at once, as a crash would (`immediate` shutdown).
    pub fn kill(&mut self) {
        self.signal(libc::SIGQUIT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_stops_and_starts_again() {
        let mut postgres = Postgres::start();
        let client = postgres.database("shop").await;
        client.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.unwrap();
        let level: String = client.query_one("SHOW wal_level", &[]).await.unwrap().get(0);
        assert_eq!(level, "logical");
        postgres.stop();
        postgres.resume();
        let rows: i64 = postgres.client("shop").await.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
        assert_eq!(rows, 1);
    }
}
