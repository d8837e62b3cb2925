"""The one DuckDB that everything shares: opens, creates and drops databases.

Guarantees: a database is one file (`<data>/<name>.db`) that holds its rows, the declared types and
the channels' offset tokens, so one transaction covers them; a restart attaches every file it finds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote as percent, unquote

import duckdb
from fakesnow import info_schema, macros
from fakesnow.instance import FakeSnow

from local_snowflake import catalog
from local_snowflake.contention import Losers
from local_snowflake.errors import error
from local_snowflake.naming import literal, quote

_MARK = "CATALOGMARK"
_INTERNAL = ("memory", "system", "temp", "_fs_global")
_RESULTS_KEPT = 200


class _Recent(OrderedDict):
    """The newest results only; the base program would keep every result for ever."""

    def __setitem__(self, key: str, value: tuple) -> None:
        super().__setitem__(key, value)
        while len(self) > _RESULTS_KEPT:
            self.popitem(last=False)


def _for_database(sql: str, name: str) -> str:
    """SQL of the base program, which names databases unquoted, made safe for any name."""
    return sql.replace(f"'{_MARK}'", literal(name)).replace(f"{_MARK}.", quote(name) + ".")


class Instance(FakeSnow):
    """The DuckDB and its databases; `on_attach` and `on_detach` tell the streaming side."""

    def __init__(self, data: Path | None = None, threads: int = 2, memory_limit: str = "4GB") -> None:
        super().__init__(db_path=data)
        self.data = data
        self.results_cache = _Recent()
        self.duck_conn.execute(f"SET GLOBAL threads = {int(threads)}")
        self.duck_conn.execute(f"SET GLOBAL memory_limit = {literal(memory_limit)}")
        self.duck_conn.execute(_for_database(macros.creation_sql(_MARK), "memory"))
        self.catalog = catalog.Catalog(self.duck_conn)
        self.on_attach: list[Callable[[str], None]] = []
        self.on_detach: list[Callable[[str], None]] = []
        self.on_table_gone: list[Callable[[str, str, str | None], None]] = []
        self.losers = Losers()
        self._lock = threading.RLock()
        self._names: set[str] = set()

    def open_existing(self) -> None:
        """Attaches every database file of the data folder."""
        if self.data is None:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.data.glob("*.db")):
            self._attach(unquote(file.stem))

    def databases(self) -> list[str]:
        """The names of the databases, sorted."""
        with self._lock:
            return sorted(self._names)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the shared DuckDB."""
        return self.duck_conn.cursor()

    def schemas(self, database: str) -> list[str]:
        """The schemas of a database that clients may see."""
        rows = self.cursor().execute(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = ? AND schema_name NOT IN "
            "('main', 'pg_catalog', 'information_schema', ?) ORDER BY 1",
            [database, catalog.HIDDEN],
        )
        return [name for (name,) in rows.fetchall()]

    def create_database(self, name: str) -> bool:
        """Makes a database with its PUBLIC schema; False when it is there already."""
        with self._lock:
            if name.upper() in {known.upper() for known in self._names} | {known.upper() for known in _INTERNAL}:
                return False
            self._attach(name)
            self.cursor().execute(f"CREATE SCHEMA IF NOT EXISTS {quote(name)}.PUBLIC")
            return True

    def drop_database(self, name: str) -> bool:
        """Removes a database and its file; False when there is none of that name."""
        with self._lock:
            if name not in self._names:
                return False
            for tell in self.on_detach:
                tell(name)
            self.cursor().execute(f"DETACH {quote(name)}")
            self._names.discard(name)
            if self.data is not None:
                for suffix in (".db", ".db.wal"):
                    (self.data / f"{percent(name, safe='')}{suffix}").unlink(missing_ok=True)
            self.catalog.changed()
            return True

    def create_schema(self, database: str, schema: str) -> bool:
        """Makes a schema; False when it is there already."""
        if database not in self.databases():
            raise error(2003, "02000", f"SQL compilation error:\nDatabase '{database}' does not exist or not authorized.")
        if schema.upper() in {known.upper() for known in self.schemas(database)}:
            return False
        self.cursor().execute(f"CREATE SCHEMA IF NOT EXISTS {quote(database)}.{quote(schema)}")
        return True

    def _attach(self, name: str) -> None:
        file = str(self.data / f"{percent(name, safe='')}.db") if self.data else ":memory:"
        conn = self.cursor()
        conn.execute(f"ATTACH {literal(file)} AS {quote(name)}")
        conn.execute(_for_database(info_schema.per_db_creation_sql(_MARK), name))
        conn.execute(_for_database(macros.creation_sql(_MARK), name))
        catalog.install(conn, name)
        self._names.add(name)
        for tell in self.on_attach:
            tell(name)
