"""Compares a PostgreSQL schema with the Snowflake schema it was copied to, row by row.

    python -m local_snowflake.compare --postgres postgres://… --port 8950 --database RAW --schema SHOP

Every table of the PostgreSQL schema is read whole from both sides. A row's checksum is the first 8 bytes of
the SHA-256 of its canonical text, a table's is the sum of those modulo 2^64: the order of rows does not
matter, doubled rows do. Prints one JSON object; for tables that differ also the columns that do and
how many rows each side has alone, never a value. Ends with 0 whatever was found.

Values that stand in `_ETL_EXACT` because their column cannot hold them count as the column's. Names fold
as the sink folds them: lower-case names are upper case in Snowflake, others stand as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import snowflake.connector
from psycopg import sql

from local_snowflake.canonical import Kind, kind_of

EXACT = "_ETL_EXACT"
ABSENT = 2003  # Snowflake's error number for an object that does not exist
_LOWER = re.compile("[a-z]+")

_COLUMNS = """
    WITH RECURSIVE base (type, oid) AS (
        SELECT oid, oid FROM pg_type
        UNION ALL SELECT b.type, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
    SELECT c.relname, a.attname, t.oid, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, a.attnum = ANY (i.indkey)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN base b ON b.type = a.atttypid
    JOIN pg_type t ON t.oid = b.oid AND t.typtype <> 'd'
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    ORDER BY c.relname COLLATE "C", a.attnum
"""


@dataclass(frozen=True)
class Column:
    """A column of a PostgreSQL table."""

    name: str
    kind: Kind
    array: bool
    key: bool


Row = list[str | None]


def fold(name: str) -> str:
    """The name's spelling in Snowflake."""
    return name if any(letter.isupper() for letter in name) else _LOWER.sub(lambda part: part[0].upper(), name)


def quoted(name: str) -> str:
    """A Snowflake identifier."""
    return '"' + name.replace('"', '""') + '"'


def tables(postgres: psycopg.Connection, schema: str) -> dict[str, list[Column]]:
    """Every table of the schema with its columns."""
    found: dict[str, list[Column]] = {}
    for table, name, base, element, key in postgres.execute(_COLUMNS, (schema,)):
        column = Column(name, kind_of(base, element), bool(element), bool(key))
        found.setdefault(table, []).append(column)
    return found


def postgres_rows(postgres: psycopg.Connection, schema: str, table: str, columns: list[Column]) -> Iterator[Row]:
    """The table's rows, spelled canonically."""
    names = [sql.SQL("to_jsonb({})" if one.array else "{}").format(sql.Identifier(one.name)) for one in columns]
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(sql.SQL(", ").join(names), sql.Identifier(schema, table))
    kinds = [one.kind.postgres for one in columns]
    with postgres.cursor().copy(query) as copy:
        for row in copy.rows():
            yield [None if value is None else kind(value) for kind, value in zip(kinds, row, strict=True)]


def snowflake_columns(cursor: Any, table: str) -> list[str]:
    """The columns of Snowflake's table."""
    return [field.name for field in cursor.execute(f"SELECT * FROM {quoted(table)} LIMIT 0").description]


def snowflake_rows(cursor: Any, table: str, names: list[str], columns: list[Column]) -> Iterator[Row]:
    """The rows of Snowflake's table, spelled canonically; a column it does not have reads as NULL."""
    exact = [EXACT] if EXACT in names else []
    wanted = [fold(one.name) for one in columns]
    read = [name for name in wanted if name in names]
    place = {name: at for at, name in enumerate(read)}
    plan = [(name, place.get(name), one.kind.snowflake) for name, one in zip(wanted, columns, strict=True)]
    cursor.execute(f"SELECT {', '.join(map(quoted, read + exact))} FROM {quoted(table)}")
    while rows := cursor.fetchmany(10_000):
        for row in rows:
            texts = json.loads(row[-1]) if exact and row[-1] is not None else {}
            yield [_cell(None if at is None else row[at], texts.get(name), kind) for name, at, kind in plan]


def _cell(value: Any, exact: str | None, kind: Any) -> str | None:
    value = exact if value is None else value
    return None if value is None else kind(value)


def digest(row: Row) -> int:
    """A row's checksum."""
    # JSON keeps values apart, and NULL from the text "null"
    text = json.dumps(row, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def summary(rows: Iterator[Row]) -> dict[str, Any]:
    """How many rows there are, and their checksum."""
    count = total = 0
    for row in rows:
        count += 1
        total += digest(row)
    return {"rows": count, "checksum": f"{total % 2**64:016x}"}


def differences(columns: list[Column], left: Iterator[Row], right: Iterator[Row]) -> dict[str, Any]:
    """Which columns differ and in how many rows, and how many rows one side has alone."""
    keys = [at for at, one in enumerate(columns) if one.key] or list(range(len(columns)))
    expected: dict[tuple[str | None, ...], Row] = {tuple(row[at] for at in keys): row for row in left}
    seen, repeated, alone = set(), 0, 0
    changed: Counter[str] = Counter()
    for row in right:
        key = tuple(row[at] for at in keys)
        repeated += key in seen
        seen.add(key)
        if (other := expected.get(key)) is None:
            alone += 1
        else:
            changed.update(one.name for one, a, b in zip(columns, other, row, strict=True) if a != b)
    missing = len(expected.keys() - seen)
    return {"only_postgres": missing, "only_snowflake": alone, "repeated_keys": repeated, "columns": dict(changed)}


def compare(postgres: psycopg.Connection, schema: str, cursor: Any, table: str, columns: list[Column]) -> dict[str, Any]:
    """One table's report."""
    def ours() -> Iterator[Row]:
        return postgres_rows(postgres, schema, table, columns)

    def theirs() -> Iterator[Row]:
        return snowflake_rows(cursor, fold(table), names, columns)

    report: dict[str, Any] = {"table": table, "postgres": summary(ours()), "snowflake": None, "equal": False}
    try:
        names = snowflake_columns(cursor, fold(table))
    except snowflake.connector.errors.ProgrammingError as error:
        if error.errno != ABSENT:
            raise
        return report
    report["snowflake"] = summary(theirs())
    report["missing_columns"] = [one.name for one in columns if fold(one.name) not in names]
    report["equal"] = report["postgres"] == report["snowflake"] and not report["missing_columns"]
    if not report["equal"]:
        report["differences"] = differences(columns, ours(), theirs())
    return report


def main(arguments: list[str] | None = None) -> None:
    """Reads the options, compares, prints."""
    parser = argparse.ArgumentParser(prog="compare", description="Compare PostgreSQL tables with their copies in Snowflake.")
    parser.add_argument("--postgres", required=True, help="URL of the database")
    parser.add_argument("--postgres-schema", default="public")
    parser.add_argument("--host", default="127.0.0.1", help="of the local Snowflake")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--account", default="LOCAL")
    parser.add_argument("--user", default="COMPARE")
    parser.add_argument("--database", required=True)
    parser.add_argument("--schema", required=True)
    options = parser.parse_args(arguments)
    settings = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=1 -c client_encoding=UTF8"
    # The local Snowflake asks for no password: the word only satisfies the connector.
    cloud = snowflake.connector.connect(
        user=options.user, password="local", account=options.account, host=options.host, port=options.port, protocol="http",
        database=options.database, schema=options.schema, network_timeout=60, login_timeout=30,
    )
    with psycopg.connect(options.postgres, options=settings) as postgres, cloud:
        found = tables(postgres, options.postgres_schema)
        cursor = cloud.cursor()
        reports = [compare(postgres, options.postgres_schema, cursor, table, columns) for table, columns in found.items()]
    json.dump({"tables": reports, "equal": all(one["equal"] for one in reports)}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
