"""The command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

from local_snowflake.faults import Knobs


@dataclass
class Options:
    """How the server was started."""

    port: int = 0
    port_file: Path | None = None
    tls_port: int | None = None
    ca_file: Path | None = None
    data: Path | None = None
    public_keys: list[Path] = field(default_factory=list)
    parent_pid: int | None = None
    threads: int = 2
    memory_limit: str = "4GB"
    verbose: bool = False
    knobs: Knobs = field(default_factory=Knobs)
    faults: list[dict] = field(default_factory=list)


def parse(arguments: list[str] | None = None) -> Options:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        prog="local_snowflake", description="A local stand-in for Snowflake, bound to 127.0.0.1 only."
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="HTTP port; 0 picks a free one (default)")
    add("--port-file", type=Path, help="write the HTTP port there, and the HTTPS port on a second line")
    add("--tls-port", type=int, help="also serve HTTPS; 0 picks a free port")
    add("--ca-file", type=Path, help="write the CA of the HTTPS certificate there")
    add("--data", type=Path, help="keep the databases in this folder (default: memory only)")
    add("--public-key", type=Path, action="append", default=[], help="verify JWTs against this PEM key; repeatable")
    add("--parent-pid", type=int, help="end when this process is gone")
    add("--commit-delay-ms", type=int, default=0, help="how long accepted rows wait before they are committed")
    add("--latency-ms", action="append", default=[], metavar="[ROUTE=]MS", help="wait before answering; repeatable")
    add(
        "--discard", nargs="?", const=True, default=False, choices=["later"],
        help="count streamed rows instead of storing them; `later`: not before it is settled",
    )
    add("--fault", type=json.loads, action="append", default=[], metavar="JSON", help="a planned failure; repeatable")
    add("--threads", type=int, default=2, help="DuckDB threads (default 2)")
    add("--memory-limit", default="4GB", help="DuckDB memory limit (default 4GB)")
    add("--verbose", action="store_true", help="log requests and statements to stderr")
    given = parser.parse_args(arguments)
    latency = {}
    for entry in given.latency_ms:
        route, _, milliseconds = entry.rpartition("=")
        latency[route or "*"] = int(milliseconds)
    knobs = Knobs(commit_delay_ms=given.commit_delay_ms, latency_ms=latency, discard=given.discard)
    return Options(
        given.port, given.port_file, given.tls_port, given.ca_file, given.data, given.public_key, given.parent_pid,
        given.threads, given.memory_limit, given.verbose, knobs, given.fault,
    )
