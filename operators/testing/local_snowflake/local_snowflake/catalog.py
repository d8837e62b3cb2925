"""What the tables look like: the declared Snowflake types, kept beside the tables themselves.

DuckDB knows one JSON type and no VARCHAR length, so each database holds `_local_columns` with what
the DDL said. Guarantees: written in the transaction of the DDL it describes, so it survives a restart
and never disagrees; a column without an entry gets the type that its DuckDB type suggests.
"""

from __future__ import annotations

import threading

import duckdb

from local_snowflake.naming import literal, quote
from local_snowflake.types import Column, SfType

HIDDEN = "_fs_information_schema"
"""The schema of each database that no client sees; the base program keeps its own views there."""

_TABLES = """
CREATE TABLE IF NOT EXISTS {db}.{hidden}._local_columns (
    schema_name VARCHAR, table_name VARCHAR, column_name VARCHAR,
    kind VARCHAR, numeric_precision INTEGER, numeric_scale INTEGER, length INTEGER);
CREATE TABLE IF NOT EXISTS {db}.{hidden}._local_channels (
    schema_name VARCHAR, pipe_name VARCHAR, channel_name VARCHAR, client_sequencer BIGINT,
    committed_token VARCHAR, rows_inserted BIGINT, rows_parsed BIGINT, rows_error BIGINT,
    last_error_message VARCHAR, last_error_token VARCHAR, last_error_ms BIGINT, created_ms BIGINT);
"""

# The kind of a column that nobody declared, as `SfType.of_duckdb` decides it.
_FALLBACK_KIND = """
CASE WHEN c.data_type LIKE 'DECIMAL%' OR c.data_type LIKE '%INT' OR c.data_type LIKE '%INTEGER' THEN 'NUMBER'
     WHEN c.data_type IN ('DOUBLE', 'FLOAT') THEN 'FLOAT' WHEN c.data_type = 'BLOB' THEN 'BINARY'
     WHEN c.data_type = 'TIMESTAMP' THEN 'TIMESTAMP_NTZ'
     WHEN c.data_type = 'TIMESTAMP WITH TIME ZONE' THEN 'TIMESTAMP_TZ'
     WHEN c.data_type = 'JSON' THEN 'VARIANT'
     WHEN c.data_type IN ('BOOLEAN', 'DATE', 'TIME') THEN c.data_type ELSE 'TEXT' END
"""

_COLUMNS_VIEW = """
CREATE OR REPLACE VIEW {db}.{hidden}._fs_columns AS
SELECT database_name AS TABLE_CATALOG, schema_name AS TABLE_SCHEMA, table_name AS TABLE_NAME,
    column_name AS COLUMN_NAME, column_index::BIGINT AS ORDINAL_POSITION, column_default AS COLUMN_DEFAULT,
    CASE WHEN is_nullable THEN 'YES' ELSE 'NO' END AS IS_NULLABLE, sf_kind AS DATA_TYPE,
    size::BIGINT AS CHARACTER_MAXIMUM_LENGTH,
    CASE WHEN sf_kind = 'TEXT' THEN least(size * 4, 134217728) ELSE size END::BIGINT AS CHARACTER_OCTET_LENGTH,
    CASE WHEN sf_kind <> 'NUMBER' THEN NULL
         WHEN duck_type LIKE 'DECIMAL%' THEN numeric_precision ELSE 38 END::BIGINT AS NUMERIC_PRECISION,
    CASE WHEN sf_kind = 'NUMBER' THEN 10 END::BIGINT AS NUMERIC_PRECISION_RADIX,
    CASE WHEN sf_kind = 'NUMBER' THEN coalesce(numeric_scale, 0) END::BIGINT AS NUMERIC_SCALE,
    CASE WHEN starts_with(sf_kind, 'TIME') THEN coalesce(fraction, 9) END::BIGINT AS DATETIME_PRECISION,
    NULL::VARCHAR AS INTERVAL_TYPE, NULL::VARCHAR AS COLLATION_NAME,
    'NO' AS IS_IDENTITY, NULL::VARCHAR AS IDENTITY_START, NULL::VARCHAR AS IDENTITY_INCREMENT, comment AS COMMENT
FROM (
    SELECT c.*, c.data_type AS duck_type, coalesce(m.kind, {kind}) AS sf_kind, m.numeric_precision AS fraction,
        CASE coalesce(m.kind, {kind}) WHEN 'TEXT' THEN coalesce(m.length, 16777216)
             WHEN 'BINARY' THEN coalesce(m.length, 8388608) END AS size
    FROM duckdb_columns() c
    LEFT JOIN {db}.{hidden}._local_columns m
      ON m.schema_name = c.schema_name AND m.table_name = c.table_name AND m.column_name = c.column_name
    WHERE c.database_name = {name} AND c.schema_name NOT IN ({hidden_name}, 'main'))
"""

TYPE_TEXT = """
CASE WHEN DATA_TYPE = 'NUMBER' THEN 'NUMBER(' || NUMERIC_PRECISION || ',' || NUMERIC_SCALE || ')'
     WHEN DATA_TYPE = 'TEXT' THEN 'VARCHAR(' || CHARACTER_MAXIMUM_LENGTH || ')'
     WHEN DATA_TYPE = 'BINARY' THEN 'BINARY(' || CHARACTER_MAXIMUM_LENGTH || ')'
     WHEN DATETIME_PRECISION IS NOT NULL THEN DATA_TYPE || '(' || DATETIME_PRECISION || ')'
     ELSE DATA_TYPE END
"""
"""The type as DESCRIBE TABLE prints it, over the columns view."""


def columns_view(database: str) -> str:
    """The name of the columns view of a database."""
    return f"{quote(database)}.{HIDDEN}._fs_columns"


def install(conn: duckdb.DuckDBPyConnection, database: str) -> None:
    """Makes the hidden tables and the columns view of a database."""
    conn.execute(_TABLES.format(db=quote(database), hidden=HIDDEN))
    conn.execute(
        _COLUMNS_VIEW.format(
            db=quote(database), hidden=HIDDEN, name=literal(database), hidden_name=literal(HIDDEN), kind=_FALLBACK_KIND
        )
    )


class Catalog:
    """The columns of every table, cached until the next DDL."""

    def __init__(self, conn: duckdb.DuckDBPyConnection) -> None:
        self._conn = conn
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str, str], list[Column]] = {}
        self.version = 0

    def changed(self) -> None:
        """Forgets every table; called after each DDL statement."""
        with self._lock:
            self.version += 1
            self._cache.clear()

    def columns(self, database: str, schema: str, table: str) -> list[Column] | None:
        """The columns of a table, exactly named; None when there is no such table."""
        key = (database, schema, table)
        with self._lock:
            found, version = self._cache.get(key), self.version
        if found is not None:
            return found
        try:
            found = self._read(self._conn.cursor(), *key)
        except duckdb.Error:
            return None
        if not found:
            return None
        with self._lock:
            if self.version == version:
                self._cache[key] = found
        return found

    def _read(self, conn: duckdb.DuckDBPyConnection, database: str, schema: str, table: str) -> list[Column]:
        rows = conn.execute(
            f"""SELECT c.column_name, c.data_type, c.is_nullable, c.column_default,
                       m.kind, m.numeric_precision, m.numeric_scale, m.length
                FROM duckdb_columns() c LEFT JOIN {quote(database)}.{HIDDEN}._local_columns m
                  ON m.schema_name = c.schema_name AND m.table_name = c.table_name AND m.column_name = c.column_name
                WHERE c.database_name = ? AND c.schema_name = ? AND c.table_name = ? ORDER BY c.column_index""",
            [database, schema, table],
        ).fetchall()
        return [
            Column(
                name,
                SfType(kind, precision, scale, length) if kind else SfType.of_duckdb(duck),
                bool(nullable),
                default,
            )
            for name, duck, nullable, default, kind, precision, scale, length in rows
        ]


def declare(
    conn: duckdb.DuckDBPyConnection, database: str, schema: str, table: str, columns: list[Column]
) -> None:
    """Notes the declared types of columns, replacing what was noted before."""
    if not columns:
        return
    where = f"{quote(database)}.{HIDDEN}._local_columns"
    names = [column.name for column in columns]
    conn.execute(
        f"DELETE FROM {where} WHERE schema_name = ? AND table_name = ? AND list_contains(?, column_name)",
        [schema, table, names],
    )
    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(columns))
    kinds = [column.type for column in columns]
    values = [[schema, table, name, k.kind, k.precision, k.scale, k.length] for name, k in zip(names, kinds, strict=True)]
    conn.execute(f"INSERT INTO {where} VALUES {marks}", [value for row in values for value in row])


def forget(conn: duckdb.DuckDBPyConnection, database: str, schema: str, table: str | None, column: str | None = None) -> None:
    """Drops the notes of a column, of a table, or of a whole schema."""
    where, values = "schema_name = ?", [schema]
    if table is not None:
        where, values = where + " AND table_name = ?", [*values, table]
    if column is not None:
        where, values = where + " AND column_name = ?", [*values, column]
    conn.execute(f"DELETE FROM {quote(database)}.{HIDDEN}._local_columns WHERE {where}", values)
