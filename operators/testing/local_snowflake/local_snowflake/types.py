"""Snowflake's column types: read from SQL, named back to clients, mapped to DuckDB.

Guarantees: NUMBER(p,s) is a DECIMAL(p,s), so 38 digits are exact; every semi-structured type is
DuckDB's JSON, which keeps the text it was given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlglot import exp

MAX_VARCHAR = 134217728
DEFAULT_VARCHAR = 16777216
MAX_BINARY = 67108864
DEFAULT_BINARY = 8388608

T = exp.DataType.Type

_KINDS = {
    "NUMBER": (T.DECIMAL, T.INT, T.BIGINT, T.SMALLINT, T.TINYINT, T.INT128, T.UBIGINT),
    "FLOAT": (T.FLOAT, T.DOUBLE),
    "TEXT": (T.VARCHAR, T.TEXT, T.CHAR, T.NCHAR, T.NVARCHAR),
    "BINARY": (T.BINARY, T.VARBINARY, T.BLOB),
    "BOOLEAN": (T.BOOLEAN,),
    "DATE": (T.DATE,),
    "TIME": (T.TIME,),
    "TIMESTAMP_NTZ": (T.TIMESTAMP, T.TIMESTAMPNTZ, T.DATETIME),
    "TIMESTAMP_TZ": (T.TIMESTAMPTZ,),
    "TIMESTAMP_LTZ": (T.TIMESTAMPLTZ,),
    "VARIANT": (T.VARIANT, T.JSON),
    "ARRAY": (T.ARRAY,),
    "OBJECT": (T.OBJECT, T.STRUCT),
}
_KIND_OF = {node: kind for kind, nodes in _KINDS.items() for node in nodes}
_DUCK = {
    "FLOAT": T.DOUBLE,
    "BINARY": T.BLOB,
    "TIMESTAMP_NTZ": T.TIMESTAMP,
    "TIMESTAMP_TZ": T.TIMESTAMPTZ,
    "TIMESTAMP_LTZ": T.TIMESTAMPTZ,
    "VARIANT": T.JSON,
    "ARRAY": T.JSON,
    "OBJECT": T.JSON,
    "BOOLEAN": T.BOOLEAN,
    "DATE": T.DATE,
    "TIME": T.TIME,
    "TEXT": T.TEXT,
}
SEMI_STRUCTURED = ("VARIANT", "ARRAY", "OBJECT")


@dataclass(frozen=True)
class SfType:
    """One column type: `kind` as INFORMATION_SCHEMA names it, and its sizes."""

    kind: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None

    @classmethod
    def of_node(cls, node: exp.DataType) -> SfType | None:
        """The type a parsed SQL type stands for; None when it is no column type here."""
        kind = _KIND_OF.get(node.this)
        if kind is None:
            return None
        sizes = [int(size.name) for size in node.expressions if isinstance(size, exp.DataTypeParam) and size.name.isdigit()]
        if kind == "NUMBER":
            decimal = node.this == T.DECIMAL
            return cls(kind, sizes[0] if decimal and sizes else 38, sizes[1] if decimal and len(sizes) > 1 else 0)
        if kind == "TEXT":
            return cls(kind, length=sizes[0] if sizes else (1 if node.this in (T.CHAR, T.NCHAR) else DEFAULT_VARCHAR))
        if kind == "BINARY":
            return cls(kind, length=sizes[0] if sizes else DEFAULT_BINARY)
        if kind.startswith("TIME"):
            return cls(kind, precision=sizes[0] if sizes else 9)
        return cls(kind)

    @classmethod
    def of_duckdb(cls, name: str) -> SfType:
        """The type a DuckDB column has when nobody declared one (CREATE TABLE AS)."""
        if sizes := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", name):
            return cls("NUMBER", int(sizes[1]), int(sizes[2]))
        if re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", name):
            return cls("NUMBER", 38, 0)
        simple = {
            "DOUBLE": cls("FLOAT"),
            "FLOAT": cls("FLOAT"),
            "BLOB": cls("BINARY", length=DEFAULT_BINARY),
            "BOOLEAN": cls("BOOLEAN"),
            "DATE": cls("DATE"),
            "TIME": cls("TIME", precision=9),
            "TIMESTAMP": cls("TIMESTAMP_NTZ", precision=9),
            "TIMESTAMP WITH TIME ZONE": cls("TIMESTAMP_TZ", precision=9),
            "JSON": cls("VARIANT"),
        }
        return simple.get(name, cls("TEXT", length=DEFAULT_VARCHAR))

    def node(self) -> exp.DataType:
        """The DuckDB type as a syntax node."""
        if self.kind == "NUMBER":
            sizes = [exp.DataTypeParam(this=exp.Literal.number(size)) for size in (self.precision, self.scale)]
            return exp.DataType(this=T.DECIMAL, expressions=sizes, nested=False)
        return exp.DataType(this=_DUCK[self.kind], nested=False)

    def duckdb(self) -> str:
        """The DuckDB type as SQL."""
        return self.node().sql(dialect="duckdb")

    def __str__(self) -> str:
        """The type as DESCRIBE TABLE prints it."""
        if self.kind == "NUMBER":
            return f"NUMBER({self.precision},{self.scale})"
        if self.kind == "TEXT":
            return f"VARCHAR({self.length})"
        if self.kind == "BINARY":
            return f"BINARY({self.length})"
        if self.precision is not None:
            return f"{self.kind}({self.precision})"
        return self.kind

    def refuses_change_to(self, new: SfType) -> bool:
        """Whether ALTER COLUMN … SET DATA TYPE is an error on the real service."""
        if self.kind != new.kind:
            return True
        if self.kind == "NUMBER":
            return self.scale != new.scale
        if self.kind in ("TEXT", "BINARY"):
            return (new.length or 0) < (self.length or 0)
        return self != new


@dataclass(frozen=True)
class Column:
    """A column of a table: its exact name, type, nullability and default."""

    name: str
    type: SfType
    nullable: bool = True
    default: str | None = None
