"""Results as the SQL API writes them: a row type, and every value as a string or null."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fakesnow.rowtype import describe_as_rowtype
from fakesnow.statement_type import DML_TYPE_IDS, statement_type_id

from local_snowflake.session import LocalCursor

_TIME_KINDS = ("time", "timestamp_ntz", "timestamp_tz", "timestamp_ltz")


class Result:
    """The rows of one statement, cut into partitions."""

    def __init__(self, cursor: LocalCursor) -> None:
        table = cursor._arrow_table
        self.row_types = _row_types(cursor)
        self.rows = table.num_rows
        self.stats = _stats(cursor, table)
        self._table = table

    def partitions(self, size: int) -> list[dict[str, int]]:
        """How many rows each partition has."""
        counts = [min(size, self.rows - start) for start in range(0, self.rows, size)] or [0]
        return [{"rowCount": count, "uncompressedSize": count * 100} for count in counts]

    def data(self, partition: int, size: int) -> list[list[str | None]]:
        """The rows of a partition."""
        part = self._table.slice(partition * size, size)
        return [list(row) for row in zip(*(_texts(column) for column in part.columns), strict=True)]

    def meta(self, size: int) -> dict[str, Any]:
        """The description of the result set."""
        return {
            "numRows": self.rows, "format": "jsonv2", "partitionInfo": self.partitions(size), "rowType": self.row_types
        }


def packed(rows: list[list[str | None]]) -> bytes:
    """The body of a later partition, which the service sends compressed."""
    return gzip.compress(json.dumps({"data": rows}).encode(), compresslevel=1)


def _row_types(cursor: LocalCursor) -> list[dict[str, Any]]:
    types = []
    for info in describe_as_rowtype(cursor._describe_last_sql()):
        one = dict(info)
        if one["type"] in _TIME_KINDS:
            one["precision"], one["scale"] = 0, 9
        types.append(one)
    return types


def _stats(cursor: LocalCursor, table: pa.Table) -> dict[str, int] | None:
    tree = cursor._last_transformed
    if tree is None or statement_type_id(tree) not in DML_TYPE_IDS:
        return None
    stats = {"numRowsInserted": 0, "numRowsUpdated": 0, "numRowsDeleted": 0, "numDuplicateRowsUpdated": 0}
    for name, column in zip(table.column_names, table.columns, strict=True):
        for verb in ("inserted", "updated", "deleted"):
            if name == f"number of rows {verb}" and table.num_rows:
                stats[f"numRows{verb.capitalize()}"] = int(column[0].as_py() or 0)
    return stats


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        micros = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
        tail = " 1440" if kind.tz else ""
        return [None if one is None else f"{_seconds(one)}{tail}" for one in micros.to_pylist()]
    if pa.types.is_time(kind):
        return [None if one is None else _seconds(one) for one in column.cast(pa.time64("us")).cast(pa.int64()).to_pylist()]
    if pa.types.is_date(kind):
        return [None if one is None else str(one) for one in column.cast(pa.date32()).cast(pa.int32()).to_pylist()]
    if pa.types.is_boolean(kind):
        return [None if one is None else str(one).lower() for one in column.to_pylist()]
    if pa.types.is_floating(kind):
        return [_float(one) for one in column.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if one is None else one.hex().upper() for one in column.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if one is None else format(one, "f") for one in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.to_pylist()
    if isinstance(column.type, pa.BaseExtensionType):
        return pc.cast(column, pa.string()).to_pylist()
    return [None if one is None else str(one) for one in column.to_pylist()]


def _seconds(micros: int) -> str:
    """Microseconds as seconds with nine decimals."""
    sign = "-" if micros < 0 else ""
    whole, rest = divmod(abs(micros), 1_000_000)
    return f"{sign}{whole}.{rest:06d}000"


def _float(value: float | None) -> str | None:
    if value is None:
        return None
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
