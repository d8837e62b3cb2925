"""What counts as the same value in PostgreSQL and in Snowflake."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from local_snowflake.canonical import kind_of

UTC = datetime.timezone.utc
CEST = datetime.timezone(datetime.timedelta(hours=2))
TEXT, UUID = 25, 2950


@pytest.mark.parametrize(("base", "element", "text", "value", "equal"), [
    (16, 0, "t", True, True),
    (16, 0, "f", True, False),
    (20, 0, "9223372036854775807", 9223372036854775807, True),
    (700, 0, "0.1", 0.1, True),
    (700, 0, "0.1", 0.10000000149011612, True),
    (701, 0, "0.1", 0.10000000149011612, False),
    (701, 0, "-Infinity", float("-inf"), True),
    (701, 0, "NaN", "NaN", True),
    (1700, 0, "1.50", Decimal("1.50"), True),
    (1700, 0, "1.50", Decimal("1.5"), False),
    (1700, 0, "0.0000000001", Decimal("1E-10"), True),
    (1700, 0, "NaN", "NaN", True),
    (17, 0, "\\x00ff", b"\x00\xff", True),
    (17, 0, "\\x", b"", True),
    (1082, 0, "0999-12-31", datetime.date(999, 12, 31), True),
    (1082, 0, "0044-03-15 BC", "0044-03-15 BC", True),
    (1083, 0, "12:34:56.5", datetime.time(12, 34, 56, 500000), True),
    (1083, 0, "24:00:00", datetime.time(0), False),
    (1114, 0, "0999-01-02 03:04:05", datetime.datetime(999, 1, 2, 3, 4, 5), True),
    (1184, 0, "2024-06-01 10:00:00.000001+00", datetime.datetime(2024, 6, 1, 12, 0, 0, 1, CEST), True),
    (1184, 0, "2024-06-01 10:00:00+00", datetime.datetime(2024, 6, 1, 11, tzinfo=UTC), False),
    (1184, 0, "infinity", "infinity", True),
    (3802, 0, '{"b": 1.50, "a": [1e2, null]}', '{"a":[100,null],"b":1.5}', True),
    (3802, 0, '{"a": 12345678901234567891}', '{"a":12345678901234567890}', False),
    (3802, 0, '"1"', "1", False),
    (114, 0, "-0.0", "0", True),
    (1007, 23, "[[1, null], [3, 4]]", "[[1,null],[3,4]]", True),
    (1231, 1700, '[1.10, 12345678901234567890.123456789, "NaN"]', '["1.10","12345678901234567890.123456789","NaN"]', True),
    (1009, TEXT, '["1.0", null]', '["1", null]', False),
    (2951, UUID, '["00000000-0000-0000-0000-000000000000"]', '["00000000-0000-0000-0000-000000000000"]', True),
    (TEXT, 0, "", " ", False),
])
def test_equal(base: int, element: int, text: str, value: Any, equal: bool) -> None:
    kind = kind_of(base, element)
    assert (kind.postgres(text) == kind.snowflake(value)) is equal
