"""The official streaming SDK, unmodified, over HTTPS."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import KEYS, Server

PROGRAM = """
import json, sys
import msgspec
from snowflake.ingest.streaming import StreamingIngestClient

task = json.load(sys.stdin)
client = StreamingIngestClient.from_table("test", "DB", "S", "T", properties=task["properties"])
channel, status = client.open_channel("sdk")
start = int(status.latest_committed_offset_token or 0)
rows = task["rows"]
for first in range(start, rows, task["batch"]):
    last = min(first + task["batch"], rows)
    lines = [msgspec.Raw(json.dumps({"ID": n, "V": {"n": n, "pad": task["pad"] * (n % 7)}}).encode()) for n in range(first, last)]
    channel.append_rows(lines, str(first + 1), str(last))
channel.wait_for_flush(20)
channel.wait_for_commit(lambda token: token is not None and int(token) >= rows, 20)
status = channel.get_channel_status()
print(json.dumps({"token": status.latest_committed_offset_token, "errors": status.rows_error_count}))
client.close(timeout_seconds=10)
"""


def _run(server: Server, rows: int, batch: int, pad: str = "") -> dict:
    properties = {
        "account": "ACME", "user": "LOADER", "url": f"https://127.0.0.1:{server.ports[1]}",
        "private_key": KEYS.private_pem().decode(), "role": "LOADER",
    }
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment["SSL_CERT_FILE"] = str(server.folder / "ca.pem")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, text=True, capture_output=True, timeout=50,
        input=json.dumps({"properties": properties, "rows": rows, "batch": batch, "pad": pad}),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"token"')))  # it logs there too


@pytest.mark.parametrize(("rows", "pad"), [(300, ""), (20000, "x" * 200)], ids=["inline", "files"])
def test_rows_land_once_and_in_full(server: Server, rows: int, pad: str) -> None:
    server.sql("CREATE TABLE T (ID NUMBER(19,0), V VARIANT)")
    assert _run(server, rows, rows // 3, pad) == {"token": str(rows), "errors": 0}
    assert server.sql("SELECT COUNT(*), COUNT(DISTINCT ID), SUM(V:n::NUMBER) FROM T") == [
        [str(rows), str(rows), str(rows * (rows - 1) // 2)]
    ]
    if pad:
        assert server.http.get(server.url + "/_local/state").json()["requests"].get("blob"), "no file was put"
