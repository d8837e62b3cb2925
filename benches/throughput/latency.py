"""Latency, idleness and start: a running engine, looked at from outside.

```text
pgbench --rate ──commits──> PostgreSQL ──> etl-stream ──> NDJSON files ──inotify──> when each became visible
```
Open loop: pgbench keeps its schedule whatever the engine does. A row's latency is from its commit, as PostgreSQL
stamped it and the file repeats it, to when the file has its final name: that is when it is durable.
"""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import threading
import time
import urllib.request
from datetime import datetime

from contenders import Engine
from server import free_port, tool

IN_MOVED_TO, IN_CREATE, IN_ISDIR = 0x80, 0x100, 0x40000000


class Arrivals(threading.Thread):
    """Notes when files get their final names, in a folder of a folder for each table."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = self.libc.inotify_init1(os.O_CLOEXEC)
        self.folders, self.seen, self.stop = {}, {}, False
        self.watch(folder)

    def watch(self, folder):
        number = self.libc.inotify_add_watch(self.inotify, folder.encode(), IN_MOVED_TO | IN_CREATE)
        self.folders[number] = folder
        for name in os.listdir(folder):
            if os.path.isdir(f"{folder}/{name}"):
                self.watch(f"{folder}/{name}")

    def run(self):
        while not self.stop:
            events = os.read(self.inotify, 1 << 16)
            now = time.time()
            while events:
                number, mask, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0").decode()
                events = events[16 + length :]
                path = f"{self.folders[number]}/{name}"
                if mask & IN_ISDIR:
                    self.watch(path)
                elif not name.startswith(".") and mask & IN_MOVED_TO:
                    self.seen[path] = now


class Running:
    """A running engine."""

    def __init__(self, lab, engine):
        self.port = free_port()
        self.log = open(f"{lab.folder}/engine.log", "w")
        self.start = time.time()
        self.process = subprocess.Popen(engine.words("--listen", f"127.0.0.1:{self.port}"), cwd=engine.folder, env={**os.environ, **engine.env},
                                        stdout=subprocess.DEVNULL, stderr=self.log)

    def status(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/status", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if self.process.poll() is not None:
                raise RuntimeError(f"the engine ended: {open(self.log.name).read()[-2000:]}") from None
            return None

    def wait(self, wanted, seconds=120):
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if status and wanted(status):
                return time.time() - self.start
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {seconds} s: {json.dumps(status)[:2000]}")
            time.sleep(0.01)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def streams(tables):
    """Whether a status says that all of these tables are followed."""
    def all_of(status):
        source = status["sources"][0]
        found = {table["table"]: table["phase"] for table in source["tables"]}
        return source["phase"] == "streaming" and all(found.get(table) == "streaming" for table in tables)
    return all_of


def until_streaming(lab, engine, tables):
    engine.pipeline({"type": "blackhole"}, source={"publication": None, "snapshot": {}, "tables": {"include": tables}})
    running = Running(lab, engine)
    try:
        return {"seconds": running.wait(streams(tables))}
    finally:
        running.end()


def percentile(values, share):
    return values[min(int(len(values) * share), len(values) - 1)]


def one_run(lab, engine, seconds, rate):
    out = f"{engine.folder}/out"
    shutil.rmtree(engine.folder, ignore_errors=True)
    lab.slots.drop("engine")
    lab.server.sql("TRUNCATE orders; CREATE SEQUENCE IF NOT EXISTS orders_id")
    engine.pipeline({"type": "file", "path": "out", "format": "ndjson", "batch": {"max_age": "10ms"}})
    os.makedirs(out)
    script = f"{lab.folder}/one.sql"
    with open(script, "w") as f:
        import tables
        f.write(f"INSERT INTO orders SELECT {tables.ROW} FROM nextval('orders_id') n;\n")
    arrivals = Arrivals(out)
    running = Running(lab, engine)
    try:
        running.wait(lambda status: status["sources"][0]["phase"] == "streaming")
        arrivals.start()
        before = running.cpu()
        words = [tool("pgbench"), "-n", "-f", script, "-R", str(rate), "-T", str(seconds), "-c", "4", "-j", "1", "-M", "prepared",
                 "-h", lab.server.folder, "-p", str(lab.server.port), "-U", "postgres", "postgres"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        offered = int(lab.server.sql("SELECT count(*) FROM orders"))
        running.wait(lambda status: status["sinks"][0]["rows"] >= offered)
        cpu = running.cpu() - before
        time.sleep(0.1)
        arrivals.stop = True
    finally:
        running.end()
    latencies = []
    for path, when in list(arrivals.seen.items()):
        with open(path) as f:
            latencies += [when - datetime.fromisoformat(json.loads(line)["_commit_ts"].replace("Z", "+00:00")).timestamp() for line in f]
    latencies.sort()
    lag = next((line for line in done.stdout.splitlines() if "schedule lag" in line), "")
    return {"changes": len(latencies), "offered": offered, "seconds": seconds, "files": len(arrivals.seen), "own": cpu, "schedule": lag.strip(),
            **{f"p{share}": percentile(latencies, share / 100) * 1000 for share in (50, 90, 99, 99.9)}, "most": latencies[-1] * 1000}


def idle(lab, engine, seconds):
    """The share of a core that a process uses which has 100 tables and nothing to do."""
    tables = [f"public.idle{n}" for n in range(100)]
    lab.server.sql("".join(f"CREATE TABLE IF NOT EXISTS idle{n} (id int8 PRIMARY KEY, v text);" for n in range(100)))
    shutil.rmtree(engine.folder, ignore_errors=True)
    lab.slots.drop("engine")
    engine.pipeline({"type": "file", "path": "out", "format": "ndjson", "batch": {"max_age": "10ms"}},
                    source={"publication": None, "snapshot": {}, "tables": {"include": tables}})
    running = Running(lab, engine)
    try:
        running.wait(streams(tables))
        time.sleep(2)
        before, start = running.cpu(), time.monotonic()
        time.sleep(seconds)
        return (running.cpu() - before) / (time.monotonic() - start) * 100
    finally:
        running.end()
        lab.server.sql("DROP PUBLICATION IF EXISTS etl_stream_bench_orders")


def measure_latency(lab, at_most, invalid):
    # A walsender sends what is flushed: a commit that does not wait for it is sent when the WAL writer gets to it.
    lab.start({"synchronous_commit": "on"})
    engine = Engine(lab, f"{lab.folder}/engine")
    seconds = 4 if lab.options.quick else 15
    results = lab.alternate({"1,000 changes/s": lambda: one_run(lab, engine, seconds, 1000)})
    runs = results["1,000 changes/s"]
    for run in runs:
        if run["changes"] != run["offered"]:
            raise invalid(f"{run['changes']} rows in files, {run['offered']} in the table")
    idles = [idle(lab, engine, seconds) for _ in range(min(lab.options.rounds, 3))]
    return {"title": "Latency", "number": 7, "scenarios": [], "latency": runs, "verdicts": [
        at_most("p50 in ms, commit to durable in a file", [run["p50"] for run in runs], 25),
        at_most("p99 in ms, commit to durable in a file", [run["p99"] for run in runs], 100),
        at_most("CPU of an idle process with 100 tables, per cent of a core", idles, 1.0),
    ]}
