"""Rows per second from REST to DuckDB: `PYTHONPATH=. python tests/bench.py [rows] [channels]`.

Ten columns, about 200 bytes of NDJSON a row, zstd, 20 000 rows a request; the clock stops when every
channel's last token is committed. Making the rows is not timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import zstandard
from conftest import Server

ROWS_A_REQUEST = 20_000
TABLE = """CREATE OR REPLACE TABLE T (ID NUMBER(19,0), NAME VARCHAR, AMOUNT NUMBER(18,5), F FLOAT, OK BOOLEAN,
    TS TIMESTAMP_NTZ(6), D DATE, U VARCHAR(36), J VARIANT, X VARCHAR)"""


def _row(number: int) -> bytes:
    row = {
        "ID": number, "NAME": f"name {number}", "AMOUNT": f"{number}.25000", "F": 1.5, "OK": True,
        "TS": "2024-01-01T10:00:00.123456", "D": "2024-01-01", "U": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "J": {"a": [1, 2, {"b": "c"}]}, "X": "some text",
    }
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def main() -> None:
    rows, channels = (int(argument) for argument in (sys.argv[1:] + ["500000", "2"][len(sys.argv) - 1 :]))
    body = b"".join(_row(number) for number in range(ROWS_A_REQUEST))
    packed = zstandard.compress(body, 1)
    requests = rows // channels // ROWS_A_REQUEST
    for mode in ("memory", "data", "discard"):
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--data", str(Path(folder) / "data")] if mode == "data" else []
            server = Server(Path(folder), *arguments)
            server.fresh()
            server.sql(TABLE)
            server.faults(discard=mode == "discard")

            def feed(name: str) -> None:
                channel = server.channel("T", name)
                channel.open()
                for number in range(requests):
                    channel.append(packed, str(number), **{"Content-Encoding": "zstd"})
                channel.wait(str(requests - 1), 120)

            feeders = [threading.Thread(target=feed, args=(f"c{number}",)) for number in range(channels)]
            begin = time.monotonic()
            [feeder.start() for feeder in feeders]
            [feeder.join() for feeder in feeders]
            seconds = time.monotonic() - begin
            total = requests * channels * ROWS_A_REQUEST
            stored = server.sql("SELECT COUNT(*) FROM T")[0][0]
            print(f"{mode}: {total} rows, {len(body) / ROWS_A_REQUEST:.0f} B each, {total / seconds:,.0f} rows/s, {stored} stored")
            server.kill()


main()
