"""The peers of the snapshot: PyPI's ADBC driver, connectorx and psycopg in a virtual environment, and psql.

As a program, in that environment: `peers.py NAME URL ROWS` fetches the table once, counts, and prints JSON. The time of a
peer is its fetch alone; starting Python and importing are not counted.
"""

import json
import os
import subprocess
import sys
import time

RANGES = 4
QUERY = "SELECT * FROM orders"
# What each reads as it is; the other types are given as text, which is what its documentation says to do.
PLAIN = "id, quantity, note, code, total, placed, paid, details::text AS details, key::text AS key, tags::text AS tags"


def adbc(url, _):
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(url) as connection, connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute(QUERY)
        rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
        return rows, time.perf_counter() - start


def connectorx(url, _):
    import connectorx

    start = time.perf_counter()
    found = connectorx.read_sql(url, f"SELECT {PLAIN} FROM orders", return_type="arrow", partition_on="id", partition_num=RANGES)
    return found.num_rows, time.perf_counter() - start


def psycopg(url, rows):
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        start = time.perf_counter()
        with cursor.copy(f"COPY ({QUERY}) TO STDOUT (FORMAT binary)") as copy:
            size = sum(len(data) for data in copy)
        if size < rows * 100:
            raise SystemExit(f"{size} bytes are not {rows} rows")
        return rows, time.perf_counter() - start


NAMES = {"ADBC": adbc, "connectorx": connectorx, "psycopg COPY binary": psycopg}


def snapshot_peers(lab, rows):
    """The contenders beside ours; those of PyPI when their environment is there."""
    from contenders import measure
    from server import tool

    server = lab.server
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"

    def peer(name):
        done = measure(server, [lab.python, os.path.abspath(__file__), name, url, str(rows)])
        seen = json.loads(done.pop("output"))
        return {**done, "seconds": seen["seconds"], "changes": seen["rows"]}

    def psql():
        pages = int(server.sql("SELECT pg_relation_size('orders') / current_setting('block_size')::int"))
        edges = [pages * part // RANGES for part in range(RANGES)] + [1 << 31]
        words = [tool("psql"), "-X", "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "postgres", "-c"]
        copies = [f"COPY (SELECT * FROM orders WHERE ctid >= '({low},0)' AND ctid < '({high},0)') TO STDOUT (FORMAT binary)" for low, high in zip(edges, edges[1:])]
        start, before = time.time(), os.times()
        running = [subprocess.Popen([*words, copy], stdout=subprocess.DEVNULL) for copy in copies]
        if any([process.wait() for process in running]):
            raise RuntimeError("psql failed")
        end, after = time.time(), os.times()
        spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
        return {"seconds": end - start, "own": spent, "peak_mb": 0, "changes": rows}

    found = {"psql COPY binary, 4 ranges": psql}
    if os.path.exists(lab.python):
        found.update({name: (lambda name=name: peer(name)) for name in NAMES})
    return found


if __name__ == "__main__":
    count, seconds = NAMES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(json.dumps({"rows": count, "seconds": seconds}))
