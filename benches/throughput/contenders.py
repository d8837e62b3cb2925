"""What is measured against what: one run of one program, with its time, its own CPU, its memory, and its walsender's CPU.

A run decodes the same log as every other of its scenario: each has a copy of one slot that was made before the load.
"""

import json
import os
import shlex
import shutil
import subprocess
import threading
import time
from datetime import datetime

from server import tool


class Walsender(threading.Thread):
    """Watches the CPU of the walsender that starts next, in nanoseconds of /proc/PID/schedstat, until it ends."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stop, self.pids, self.seconds = server, False, {}, 0.0

    def run(self):
        turn = 0
        while not self.stop:
            # Looking for processes costs more than looking at one.
            if turn % 20 == 0 or not self.pids:
                self.pids.update({pid: 0.0 for pid in self.server.walsenders() if pid not in self.pids})
            for pid in self.pids:
                try:
                    with open(f"/proc/{pid}/schedstat") as f:
                        self.pids[pid] = int(f.read().split()[0]) / 1e9
                except (OSError, ValueError, IndexError):
                    continue
            turn += 1
            time.sleep(0.02)

    def end(self):
        self.stop = True
        self.join()
        return sum(self.pids.values())


def measure(server, words, cwd=None, env=None):
    """Runs a program to its end."""
    watch = Walsender(server)
    watch.start()
    start = time.time()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **(env or {})}) as process:
        errors = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        reader.start()
        output = process.stdout.read()
        reader.join()
        _, status, usage = os.wait4(process.pid, 0)
        end = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
    sender = watch.end()
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}: {errors[0][-2000:]}")
    return {
        "output": output, "errors": errors[0], "start": start, "end": end, "seconds": end - start,
        "own": usage.ru_utime + usage.ru_stime, "own_user": usage.ru_utime, "peak_mb": usage.ru_maxrss / 1024, "sender": sender,
    }


class Slots:
    """A slot per run, all at the same place of the log."""

    def __init__(self, server):
        self.server = server

    def drop(self, *names):
        listed = ", ".join(f"'{name}'" for name in names)
        self.server.sql(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name IN ({listed})")

    def copy(self, name):
        self.drop(name)
        self.server.sql(f"SELECT pg_copy_logical_replication_slot('base', '{name}')")


class Drain:
    """The limit: `drain.rs`."""

    def __init__(self, lab, unix=False):
        self.lab, self.unix = lab, unix

    def run(self, until, changes):
        lab = self.lab
        lab.slots.copy("run")
        tuned = ["--wait-us", "1000"] if self.unix else ["--wait-us", "10000", "--receive-buffer", "65536"]
        words = [lab.drain, "--at", lab.server.unix if self.unix else lab.server.tcp, "--slot", "run", "--publication", "bench", "--until", until, *tuned]
        done = measure(lab.server, words)
        seen = json.loads(done.pop("output"))
        lab.slots.drop("run")
        return {**done, "seconds": seen["seconds"], "changes": seen["changes"], "reads": seen["reads"], "bytes": seen["bytes"]}


class Recvlogical:
    """PostgreSQL's own client, to /dev/null, or several at once. It counts nothing: what it is given is what the drain counted."""

    def __init__(self, lab, unix=False, slots=1):
        self.lab, self.unix = lab, unix
        self.names = [f"run{n or ''}" for n in range(slots)]

    def run(self, until, changes):
        lab, server = self.lab, self.lab.server
        commands = []
        for name in self.names:
            lab.slots.copy(name)
            words = [tool("pg_recvlogical"), "-h", server.folder if self.unix else "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "postgres"]
            words += ["--slot", name, "--start", "-f", "/dev/null", "--no-loop", "--endpos", until, "-o", "proto_version=1", "-o", "publication_names=bench"]
            commands.append(words)
        # The shell's CPU is its children's.
        together = "".join(f"{shlex.join(words)} & all=\"$all $!\"\n" for words in commands) + "for one in $all; do wait $one || exit 1; done"
        done = measure(server, commands[0] if len(commands) == 1 else ["sh", "-c", together])
        lab.slots.drop(*self.names)
        return {**done, "changes": changes}


class Engine:
    """etl-stream, with a state that is put back before each run; a source for each slot."""

    def __init__(self, lab, folder, slots=1):
        self.lab, self.folder, self.saved = lab, folder, f"{folder}.saved"
        self.names = {f"orders{n or ''}": f"engine{n or ''}" for n in range(slots)}

    def pipeline(self, sink, operators=None, source=None, workers=None, server="none"):
        operators = operators or {}
        source = {"type": "postgres", "url": {"env": "BENCH_URL"}, "publication": "bench", "snapshot": {"mode": "never"}, **(source or {})}
        sources = {name: {**source, "slot": slot} for name, slot in self.names.items()}
        last = list(operators)[-1:] or list(sources)
        engine = {"engine": {"workers": workers}} if workers else {}
        # JSON is YAML.
        text = json.dumps({"name": "bench", **engine, "server": server, "sources": sources, "operators": operators, "sinks": {"out": {"inputs": last, **sink}}}, indent=1)
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self.folder}/pipeline.yaml", "w") as f:
            f.write(text)

    def words(self, *more):
        return [self.lab.binary, "run", "pipeline.yaml", *more]

    @property
    def env(self):
        return {"BENCH_URL": self.lab.server.url, "MASK_KEY": "0123456789abcdef0123456789abcdef"}

    def prepare(self):
        """Makes slot and state where the log ends now, and `base` at the same place."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lab.slots.drop(*self.names.values(), "base", "run")
        self.pipeline({"type": "blackhole"})
        measure(self.lab.server, self.words("--until", "caught-up"), self.folder, self.env)
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(self.folder, self.saved)
        self.lab.server.sql("SELECT pg_copy_logical_replication_slot('engine', 'base')")

    def fresh(self):
        """Back to where `prepare` left it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.saved, self.folder)
        for slot in self.names.values():
            self.lab.slots.copy(slot)

    def run(self, until, changes, sink=None, **pipeline):
        self.fresh()
        self.pipeline(sink or {"type": "blackhole"}, **pipeline)
        done = measure(self.lab.server, self.words("--until", until), self.folder, self.env)
        lines = log(done.pop("errors"))
        streaming = next((line for line in lines if line.get("message") == "streaming"), None)
        ended = [line for line in lines if line.get("message") == "done"]
        # From when the stream was started, as the drain counts, until everything is durable and confirmed.
        seconds = at(ended[-1]) - at(streaming) if streaming and ended else done["seconds"]
        return {**done, "process_seconds": done["seconds"], "seconds": seconds, "changes": sum(line["rows"] for line in ended)}


def log(text):
    """The lines of a JSON log."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def at(line):
    """When a line was logged."""
    return datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()
