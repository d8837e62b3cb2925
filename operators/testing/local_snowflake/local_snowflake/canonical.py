"""One spelling for a value, whichever of the two databases it was read from.

PostgreSQL's side is the text of the type's output function under `TimeZone=UTC`, `DateStyle=ISO`,
`IntervalStyle=iso_8601`, arrays as `to_jsonb` spells them. Snowflake's side is what its Python connector
returns, or PostgreSQL's exact text where the column could not hold the value. Equal values, and only
those, get the same spelling: nothing is rounded; JSON numbers are compared by value.
"""

from __future__ import annotations

import datetime
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any

# pg_type.oid of built-in types (PostgreSQL, src/include/catalog/pg_type.dat)
BOOL, BYTEA, INT8, INT2, INT4, OID = 16, 17, 20, 21, 23, 26
JSON, FLOAT4, FLOAT8, DATE, TIME, TIMESTAMP, TIMESTAMPTZ = 114, 700, 701, 1082, 1083, 1114, 1184
NUMERIC, JSONB = 1700, 3802
NUMBERS = {INT8, INT2, INT4, OID, FLOAT4, FLOAT8, NUMERIC}

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_FLOAT4 = struct.Struct("f")
_UTC = datetime.timezone.utc


@dataclass(frozen=True)
class Kind:
    """How a column's values are spelled, from either side."""

    postgres: Callable[[str], str]
    snowflake: Callable[[Any], str]


def _same(value: str) -> str:
    return value


def _float8(value: Any) -> str:
    return repr(float(value))


def _float4(value: Any) -> str:
    return repr(_FLOAT4.unpack(_FLOAT4.pack(float(value)))[0])


def _fixed(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _hex(value: Any) -> str:
    return value if isinstance(value, str) else "\\x" + value.hex()


def _date(value: Any) -> str:
    return value if isinstance(value, str) else value.isoformat()


def _clock(value: Any) -> str:
    text = f"{value.hour:02}:{value.minute:02}:{value.second:02}"
    return f"{text}.{value.microsecond:06}".rstrip("0") if value.microsecond else text


def _time(value: Any) -> str:
    return value if isinstance(value, str) else _clock(value)


def _timestamp(value: Any) -> str:
    # isoformat pads years to four digits, strftime does not
    return value if isinstance(value, str) else f"{value.date().isoformat()} {_clock(value)}"


def _timestamptz(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _timestamp(value.astimezone(_UTC) if value.tzinfo else value) + "+00"


def number(text: str) -> str:
    """A JSON number by its value: 1.50, 15e-1 and 1.5 are one spelling."""
    if text.lstrip("-").isdigit():
        return "0" if text == "-0" else text
    value = Decimal(text).normalize(_EXACT)
    if value.is_zero():
        return "0"
    return format(value, "f") if 0 <= value.as_tuple().exponent < 400 else str(value)


def _marked(text: str) -> str:
    # No text of PostgreSQL has a NUL: a number cannot be taken for a string.
    return "\0" + number(text)


def document(text: str) -> str:
    """A JSON document: keys sorted, numbers by value, no blanks."""
    return _dump(json.loads(text, parse_int=_marked, parse_float=_marked))


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return _marked(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def number_array(text: str) -> str:
    """An array of numbers, of which a writer may have made strings to keep their digits."""
    return _dump(_numbers(json.loads(text, parse_int=_marked, parse_float=_marked)))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_PLAIN = Kind(_same, str)
_KINDS = {
    BOOL: Kind(_same, lambda value: value if isinstance(value, str) else "ft"[value]),
    FLOAT4: Kind(_float4, _float4),
    FLOAT8: Kind(_float8, _float8),
    NUMERIC: Kind(_same, _fixed),
    BYTEA: Kind(_same, _hex),
    DATE: Kind(_same, _date),
    TIME: Kind(_same, _time),
    TIMESTAMP: Kind(_same, _timestamp),
    TIMESTAMPTZ: Kind(_same, _timestamptz),
    JSON: Kind(document, document),
    JSONB: Kind(document, document),
}


def kind_of(base: int, element: int) -> Kind:
    """The spelling of a type: the oid of the type under its domains, and of its element if it is an array, else 0."""
    if element in NUMBERS:
        return Kind(number_array, number_array)
    if element:
        return Kind(document, document)
    return _KINDS.get(base, _PLAIN)
