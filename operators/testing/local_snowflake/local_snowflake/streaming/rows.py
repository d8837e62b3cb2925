"""NDJSON to typed columns: which rows fit the table, and why the others do not.

```text
 body ──> lines ──> one text column per table column ──> DuckDB casts ──> rows that fit + errors
          fast: all lines in one call; slow: line by line, once any line is out of the ordinary
```
Guarantees: a value is never read as a float on its way to NUMBER, VARIANT, ARRAY or OBJECT; a row
that does not fit is counted and left out, its neighbours stay; messages never hold a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import attrgetter

import duckdb
import msgspec
import numpy
import pyarrow as pa
import pyarrow.compute as pc

from local_snowflake.naming import quote
from local_snowflake.types import Column, SfType

Raw = msgspec.Raw
_TEXTUAL = ("TEXT", "BINARY", "DATE", "TIME", "TIMESTAMP_NTZ", "TIMESTAMP_TZ", "TIMESTAMP_LTZ")
"""Kinds whose values travel as JSON strings; all others keep their JSON text."""

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_STAMP = rf"{_DATE}([T ]{_TIME}( ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?))?)?"
_ESCAPED = re.compile(r'[\\"\x00-\x1f]')
_ERROR = "__error"


@dataclass
class Decoded:
    """The rows of one request that fit, typed, and what is known of the others."""

    table: pa.Table | None
    parsed: int = 0
    errors: int = 0
    message: str | None = None


@dataclass
class _Split:
    """Text columns, and the rows that already failed."""

    columns: list[pa.Array]
    errors: int = 0
    message: str | None = None
    lines: int = 0


def count_lines(body: bytes) -> int:
    """How many rows a body has, without reading them."""
    return body.count(b"\n") + (1 if body and not body.endswith(b"\n") else 0)


class RowReader:
    """Reads rows for one version of a table's columns."""

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns
        fields, rename = [], {}
        for position, column in enumerate(columns):
            name = f"f{position}"
            textual = column.type.kind in _TEXTUAL
            fields.append((name, str | None, None) if textual else (name, Raw, Raw()))
            rename[name] = column.name
        self._names = list(rename)
        self._fast = None
        if not any(_ESCAPED.search(column.name) for column in columns):  # names that a field cannot have
            row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)
            self._fast = msgspec.json.Decoder(row)
        self._any = msgspec.json.Decoder(dict[str, Raw])
        self._text = msgspec.json.Decoder(str)
        self._position = {column.name: position for position, column in enumerate(columns)}
        self._query = _cast_query(columns)

    def read(self, conn: duckdb.DuckDBPyConnection, body: bytes, reject: str | None = None) -> Decoded:
        """Reads a body; `reject` is a pattern whose lines count as errors."""
        split = None if reject or self._fast is None else self._split_fast(body)
        if split is None:
            split = self._split_slow(body, re.compile(reject.encode()) if reject else None)
        if split.lines == split.errors:
            return Decoded(None, split.lines, split.errors, split.message)
        source = pa.table(split.columns, names=[f"x{position}" for position in range(len(split.columns))])
        conn.register("request_rows", source)
        try:
            typed = conn.execute(self._query).to_arrow_table()
        finally:
            conn.unregister("request_rows")
        problems = typed.column(_ERROR)
        bad = len(problems) - problems.null_count
        message = split.message
        if bad:
            message = pc.max(problems).as_py()
            typed = typed.filter(pc.is_null(problems))
        return Decoded(typed.drop_columns([_ERROR]), split.lines, split.errors + bad, message)

    def _split_fast(self, body: bytes) -> _Split | None:
        try:
            body.decode()
            rows = self._fast.decode_lines(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        columns = []
        for name, column in zip(self._names, self.columns, strict=True):
            values = list(map(attrgetter(name), rows))
            columns.append(_strings(values) if column.type.kind in _TEXTUAL else _raw_texts(values))
        return _Split(columns, lines=len(rows))

    def _split_slow(self, body: bytes, reject: re.Pattern | None) -> _Split:
        kept: list[list[str | None]] = [[] for _ in self.columns]
        split = _Split([])
        for line in body.split(b"\n"):
            if not line.strip():
                continue
            split.lines += 1
            try:
                if reject and reject.search(line):
                    raise ValueError("row refused on request")
                cells = self._row(line)
            except (msgspec.MsgspecError, ValueError) as problem:
                split.errors += 1
                split.message = str(problem)
                continue
            for target, cell in zip(kept, cells, strict=True):
                target.append(cell)
        split.columns = [_strings(values) for values in kept]
        return split

    def _row(self, line: bytes) -> list[str | None]:
        line.decode()
        try:
            given = self._any.decode(line)
        except msgspec.MsgspecError as problem:
            raise ValueError("row is not a JSON object") from problem
        cells: list[str | None] = [None] * len(self.columns)
        for key, raw in given.items():
            position = self._position.get(key)
            if position is None:
                raise ValueError(f"no column named '{key}' in the table")
            text = bytes(raw).decode()
            if text == "null":
                continue
            kind = self.columns[position].type.kind
            if kind in _TEXTUAL and text.startswith('"'):
                cells[position] = self._text.decode(raw)
            elif kind in _TEXTUAL and kind != "TEXT":
                raise ValueError(f"column '{key}': a JSON string is expected for {self.columns[position].type}")
            else:
                cells[position] = text
        return cells


def _strings(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.large_string())


def _raw_texts(values: list) -> pa.Array:
    """JSON texts as one column without a Python object per value; null and a missing key are NULL."""
    count = len(values)
    if not count:
        return pa.array([], pa.large_string())
    joined = numpy.frombuffer(b"\n".join(values), numpy.uint8)
    breaks = joined == 10
    offsets = numpy.zeros(count + 1, numpy.int64)
    offsets[1:count] = numpy.flatnonzero(breaks) - numpy.arange(count - 1)
    offsets[count] = len(joined) - (count - 1)
    text = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(joined[~breaks].tobytes()))
    absent = pc.or_(pc.equal(text, "null"), pc.equal(text, ""))
    return pc.if_else(absent, pa.scalar(None, pa.large_string()), text)


def _cast(kind: SfType, x: str) -> str:
    """The SQL that turns a text into the type, or NULL where it does not fit."""
    bare = f"trim({x}, '\"')"
    if kind.kind == "NUMBER":
        return f"TRY_CAST({bare} AS {kind.duckdb()})"
    if kind.kind == "FLOAT":
        return f"TRY_CAST({bare} AS DOUBLE)"
    if kind.kind == "BOOLEAN":
        return f"TRY_CAST({bare} AS BOOLEAN)"
    if kind.kind == "TEXT":
        return f"CASE WHEN strlen({x}) <= {kind.length} OR length({x}) <= {kind.length} THEN {x} END"
    if kind.kind == "BINARY":
        plain = f"CASE WHEN regexp_full_match({x}, '[A-Za-z0-9+/]*={{0,2}}') THEN TRY(from_base64({x})) END"
        return f"CASE WHEN octet_length({plain}) <= {kind.length} THEN {plain} END"
    if kind.kind == "DATE":
        return f"CASE WHEN regexp_full_match({x}, '{_DATE}') AND {x} >= '0001' THEN TRY_CAST({x} AS DATE) END"
    if kind.kind == "TIME":
        return f"CASE WHEN regexp_full_match({x}, '{_TIME}') THEN TRY_CAST({x} AS TIME) END"
    if kind.kind == "TIMESTAMP_NTZ":
        return f"CASE WHEN regexp_full_match({x}, '{_STAMP}') AND {x} >= '0001' THEN TRY_CAST({_closed(x)} AS TIMESTAMP) END"
    if kind.kind.startswith("TIMESTAMP"):
        return f"CASE WHEN regexp_full_match({x}, '{_STAMP}') AND {x} >= '0001' THEN TRY_CAST({_closed(x)} AS TIMESTAMPTZ) END"
    if kind.kind in ("ARRAY", "OBJECT"):
        opening = "[" if kind.kind == "ARRAY" else "{"
        return f"CASE WHEN ltrim({x}) LIKE '{opening}%' THEN {x} END"
    return x


def _closed(x: str) -> str:
    """A timestamp text without the space before its offset."""
    return f"replace(replace(replace({x}, ' +', '+'), ' -', '-'), ' Z', 'Z')"


def _cast_query(columns: list[Column]) -> str:
    inner, outer, problems = [], [], []
    for position, column in enumerate(columns):
        x, v = f"x{position}", f"v{position}"
        inner += [x, f"{_cast(column.type, x)} AS {v}"]
        outer.append(f"{v} AS {quote(column.name)}")
        name = column.name.replace("'", "''")
        problems.append(f"WHEN {x} IS NOT NULL AND {v} IS NULL THEN 'column ''{name}'': value does not fit {column.type}'")
        if not column.nullable:
            problems.append(f"WHEN {x} IS NULL THEN 'column ''{name}'': NULL in a NOT NULL column'")
    return (
        f"SELECT {', '.join(outer)}, CASE {' '.join(problems)} END AS {_ERROR} "
        f"FROM (SELECT {', '.join(inner)} FROM request_rows)"
    )
