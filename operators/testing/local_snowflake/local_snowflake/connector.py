"""The Python connector's routes: the base program's, with its defects mended.

Mended: NULL timestamps read back as 1970-01-01; whole NUMBERs come back as int where they fit; a
failure is an answer with code and SQL state instead of an HTTP 500 that the connector retries for minutes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import fakesnow.arrow as base_arrow
import fakesnow.rowtype as base_rowtype
import fakesnow.server as base_server
import pyarrow as pa
import pyarrow.compute as pc
from fakesnow.expr import normalise_ident
from starlette.routing import Route

from local_snowflake.dialect import Context
from local_snowflake.instance import Instance
from local_snowflake.session import Session

_LONG = pa.int64()
_OTHER_TYPES = {
    "SMALLINT": "fixed", "TINYINT": "fixed", "UTINYINT": "fixed", "USMALLINT": "fixed", "UINTEGER": "fixed",
    "UHUGEINT": "fixed", "FLOAT": "real", "UUID": "text", "INTERVAL": "text",
}


class Shared:
    """Stands where the base program keeps its shared DuckDB: login makes sessions over the instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def connect(self, database: str | None = None, schema: str | None = None, **kwargs: Any) -> Session:
        """A session; the database and schema of the login are made when they are missing."""
        if database:
            self._instance.create_database(database)
            if schema:
                self._instance.create_schema(database, schema)
        kwargs.pop("nop_regexes", None)
        return Session(self._instance, database, schema, Context(), **kwargs)


def _timestamp_struct(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A timestamp column as the connector wants it, with NULLs where they are."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    zoned = values.type.tz is not None
    micros = values.cast(pa.timestamp("us", values.type.tz)).cast(_LONG).fill_null(0)
    epoch = pc.cast(pc.floor(pc.divide(micros.cast(pa.decimal128(25, 6)), pa.scalar(Decimal(1_000_000)))), _LONG)
    fraction = pc.multiply(pc.subtract(micros, pc.multiply(epoch, 1_000_000)), 1000).cast(pa.int32())
    arrays, names = [epoch, fraction], [("epoch", _LONG), ("fraction", pa.int32())]
    if zoned:
        arrays.append(pa.array([1440] * len(values), pa.int32()))
        names.append(("timezone", pa.int32()))
    fields = [pa.field(name, kind, nullable=False) for name, kind in names]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=pc.is_null(values))


_to_sf = base_arrow.to_sf


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A NUMBER without decimals as 64-bit integers, when all of its values fit."""
    if not (pa.types.is_decimal(column.type) and column.type.scale == 0):
        return column
    try:
        return column.cast(_LONG)
    except pa.ArrowInvalid:
        return column


def _to_sf_whole(table: pa.Table, rowtype: list) -> pa.Table:
    columns = [_whole(column) for column in table.columns]
    return _to_sf(pa.table(columns, names=[f"c{position}" for position in range(len(columns))]), rowtype)


_from_binding = base_server.from_binding


def binding(given: dict[str, Any]) -> Any:
    """A bound value; NULL and fractions included."""
    kind, value = given.get("type"), given.get("value")
    if value is None:
        return None
    if kind == "FIXED":
        return int(value) if str(value).lstrip("+-").isdigit() else Decimal(value)
    if kind == "REAL":
        return float(value)
    return _from_binding({"type": kind, "value": value})


def install(instance: Instance) -> list[Route]:
    """Mends the base program and points it at the instance; its routes."""
    base_server.shared_fs = Shared(instance)
    base_server.from_binding = binding
    base_server.to_sf = _to_sf_whole
    base_server.normalise_ident = normalise_ident
    base_arrow.timestamp_to_sf_struct = _timestamp_struct
    base_rowtype.duckdb_to_sf_type.update(_OTHER_TYPES)
    return list(base_server.routes)


def forget_sessions() -> None:
    """Ends every connector session."""
    base_server.sessions.clear()
