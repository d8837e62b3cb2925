"""A PostgreSQL server of our own: a private folder, a free port, a user that is not root; gone with the process.

`fsync` is off, as is every other promise about a crash: what is measured is what a walsender can send.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

SETTINGS = {
    "wal_level": "logical",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "512MB",
    "max_wal_senders": "32",
    "max_replication_slots": "64",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "error",
}


def installation():
    """The folder of the server's programs: ETL_STREAM_PG_BIN, else Debian's 15, else the newest there is."""
    named = os.environ.get("ETL_STREAM_PG_BIN")
    if named:
        return named
    base = "/usr/lib/postgresql"
    versions = sorted(os.listdir(base), key=int) if os.path.isdir(base) else []
    if not versions:
        raise SystemExit("no PostgreSQL: apt-get install postgresql-15, or set ETL_STREAM_PG_BIN to a folder with initdb")
    return f"{base}/{'15' if '15' in versions else versions[-1]}/bin"


def tool(name):
    """A client program: the newest of Debian's, which every server version understands."""
    base = "/usr/lib/postgresql"
    for version in sorted(os.listdir(base), key=int, reverse=True) if os.path.isdir(base) else []:
        if os.path.exists(f"{base}/{version}/bin/{name}"):
            return f"{base}/{version}/bin/{name}"
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is not installed: apt-get install postgresql-15")
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, settings=None):
        self.bin = installation()
        self.folder = tempfile.mkdtemp(prefix="etl-stream-bench-")
        self.port = free_port()
        self.user = {}
        if os.geteuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            entry = names.get("postgres") or names["nobody"]
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        os.chmod(self.folder, 0o755)
        self.data = f"{self.folder}/data"
        self.run([f"{self.bin}/initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", self.data])
        options = {**SETTINGS, **(settings or {}), "unix_socket_directories": self.folder, "port": str(self.port)}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [f"{self.bin}/postgres", "-D", self.data, *words],
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(f"{self.folder}/log", "w"), **self.user,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.sql("SELECT 1")
                break
            except RuntimeError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"the server did not start: {open(f'{self.folder}/log').read()}") from None
                time.sleep(0.1)
        self.version = self.sql("SHOW server_version")

    def run(self, words):
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, **self.user)
        if done.returncode:
            raise SystemExit(f"{words[0]} failed: {done.stderr}")

    def psql(self):
        return [tool("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "postgres"]

    def sql(self, text):
        done = subprocess.run(self.psql(), input=text, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    @property
    def tcp(self):
        return f"127.0.0.1:{self.port}"

    @property
    def unix(self):
        return f"{self.folder}/.s.PGSQL.{self.port}"

    @property
    def url(self):
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def flushed(self):
        """The end of what is written, once it is flushed: a walsender sends no further."""
        end = self.sql("SELECT pg_current_wal_insert_lsn()")
        deadline = time.monotonic() + 60
        while self.sql(f"SELECT pg_current_wal_flush_lsn() >= '{end}'") != "t":
            if time.monotonic() > deadline:
                raise RuntimeError("the log is not flushed")
            time.sleep(0.05)
        return end

    def walsenders(self):
        """Process ids of the server's walsenders that stream."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid:
                    with open(f"/proc/{pid}/cmdline") as f:
                        if "walsender" in f.read():
                            found.append(int(pid))
            except (OSError, ValueError):
                continue
        return found

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(2)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
