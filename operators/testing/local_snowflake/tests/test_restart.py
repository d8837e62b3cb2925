"""Restarts: what SIGKILL may take away, and what it may not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import requests
from conftest import HOME, Server


def test_rows_and_tokens_never_disagree(start, tmp_path) -> None:
    server: Server = start("--data", str(tmp_path / "data"), "--commit-delay-ms", "20")
    server.sql('CREATE DATABASE DB; CREATE SCHEMA S; CREATE TABLE T (ID NUMBER(19,0), O OBJECT); CREATE DATABASE "my-dB"', count=0)
    for _ in range(2):
        channel = server.channel("T")
        committed = int(channel.open()["channel_status"]["last_committed_offset_token"] or 0)
        assert int(server.sql("SELECT COUNT(*) FROM T")[0][0]) == committed
        killer = threading.Timer(0.35, server.kill)
        killer.start()
        try:
            sent = committed
            while sent < committed + 100_000:
                channel.append([{"ID": sent + row, "O": {"a": row}} for row in range(50)], str(sent + 50))
                sent += 50
        except (requests.RequestException, AssertionError):
            pass
        killer.join()
        server.process.wait()
        server.start()
    channel = server.channel("T")
    committed = int(channel.open()["channel_status"]["last_committed_offset_token"] or 0)
    assert committed > 0
    assert server.sql("SELECT COUNT(*), COUNT(DISTINCT ID), MAX(ID) + 1 FROM T") == [[str(committed)] * 3]
    assert [row[1] for row in server.sql("DESCRIBE TABLE T")] == ["NUMBER(19,0)", "OBJECT"]
    assert set(server.http.get(server.url + "/_local/state").json()["databases"]) == {"DB", "my-dB"}


def test_tokens_of_an_earlier_run_are_refused(start, tmp_path) -> None:
    server: Server = start("--data", str(tmp_path / "data"))
    server.sql("CREATE DATABASE DB; CREATE SCHEMA S; CREATE TABLE T (ID NUMBER(19,0))", count=0)
    channel = server.channel("T")
    channel.open()
    channel.append([{"ID": 1}], "1")
    channel.wait("1")
    server.kill()
    server.start()
    answer = channel.post([{"ID": 2}], "2")
    assert (answer.status_code, answer.json()["code"]) == (409, "ERR_CHANNEL_MUST_BE_REOPENED")
    assert channel.status()["rows_inserted"] == 1


def test_sigterm_is_quick(start) -> None:
    server: Server = start()
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 2


def test_it_does_not_outlive_its_parent() -> None:
    program = (
        "import os, subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'local_snowflake', '--parent-pid', "
        "str(os.getpid())], stdout=subprocess.PIPE, text=True); child.stdout.readline(); print(child.pid)"
    )
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20)
    until = time.monotonic() + 5
    while _runs(int(done.stdout)):
        assert time.monotonic() < until
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
