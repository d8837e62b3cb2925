"""Values: what each column type takes, keeps exactly, and refuses as a row error."""

from __future__ import annotations

import json

import pytest
from conftest import Server

BIG = "99999999999999999999999999999999999999"

# (type, JSON text sent, SQL that reads it back, what it reads)
TAKEN = [
    ("NUMBER(38,0)", BIG, "C", BIG),
    ("NUMBER(38,0)", f'"-{BIG}"', "C", f"-{BIG}"),
    ("NUMBER(19,0)", "9223372036854775807", "C", "9223372036854775807"),
    ("NUMBER(10,2)", '"12.345"', "C", "12.35"),
    ("NUMBER(10,2)", "12.5", "C", "12.50"),
    ("NUMBER(38,20)", "123456789012345678.12345678901234567890", "C", "123456789012345678.12345678901234567890"),
    ("NUMBER(10,2)", "1.5e3", "C", "1500.00"),
    ("FLOAT", "1.5", "C", "1.5"),
    ("FLOAT", '"NaN"', "C", "NaN"),
    ("FLOAT", '"-inf"', "C", "-inf"),
    ("FLOAT", '"inf"', "C", "inf"),
    ("BOOLEAN", "true", "C", "true"),
    ("VARCHAR", '"h\\u00e9\\n\\"\\ud83d\\ude00"', "C", "hé\n\"\U0001f600"),
    ("VARCHAR", "12", "C", "12"),
    ("VARCHAR(3)", '"äöü"', "C", "äöü"),
    ("BINARY", '"AP8="', "C", "00FF"),
    ("DATE", '"2024-02-29"', "C::VARCHAR", "2024-02-29"),
    ("DATE", '"9999-12-31"', "C::VARCHAR", "9999-12-31"),
    ("TIME(6)", '"23:59:59.123456"', "C", "86399.123456000"),
    ("TIMESTAMP_NTZ(6)", '"2024-01-01T10:00:00.123456"', "C", "1704103200.123456000"),
    ("TIMESTAMP_NTZ(6)", '"0001-01-01 00:00:00"', "C", "-62135596800.000000000"),
    ("TIMESTAMP_TZ(6)", '"2024-01-01 10:00:00 +02:00"', "C", "1704096000.000000000 1440"),
    ("TIMESTAMP_TZ(6)", '"2024-01-01T10:00:00+02:00"', "C", "1704096000.000000000 1440"),
    ("TIMESTAMP_LTZ", '"2024-01-01T10:00:00Z"', "C", "1704103200.000000000 1440"),
    ("VARIANT", '{"a": 1.00000000000000000000001, "b": [1, "x"]}', "C", '{"a": 1.00000000000000000000001, "b": [1, "x"]}'),
    ("VARIANT", '"text"', "C", '"text"'),
    ("VARIANT", "123456789012345678901234567890", "C", "123456789012345678901234567890"),
    ("ARRAY", '[1, null, "x"]', "C", '[1, null, "x"]'),
    ("OBJECT", '{"k": "v"}', "C", '{"k": "v"}'),
    ("VARIANT", "null", "C", None),
    ("NUMBER(5,0)", "null", "C", None),
]

# (type, JSON text that does not fit)
REFUSED = [
    ("NUMBER(5,0)", '"abc"'), ("NUMBER(5,0)", "123456"), ("NUMBER(5,2)", "1234.5"), ("NUMBER(5,0)", "99999.5"),
    ("NUMBER(38,0)", BIG + "0"), ("NUMBER(5,0)", "true"), ("NUMBER(5,0)", "[1]"), ("NUMBER(5,0)", '"NaN"'),
    ("NUMBER(5,0)", '""'), ("FLOAT", '"x"'), ("FLOAT", "{}"), ("BOOLEAN", '"maybe"'),
    ("VARCHAR(3)", '"abcd"'), ("BINARY", '"A$=="'), ("BINARY", '"AP8"'), ("BINARY(1)", '"AP8="'), ("BINARY", "1"),
    ("DATE", '"2024-02-30"'), ("DATE", '"0000-01-01"'), ("DATE", '"10000-01-01"'), ("DATE", '"infinity"'), ("DATE", "5"),
    ("DATE", '"2024-01-01 BC"'), ("TIME", '"24:00:00"'), ("TIME", '"10:00:00+02"'),
    ("TIMESTAMP_NTZ", '"infinity"'), ("TIMESTAMP_NTZ", '"2024-01-01T25:00:00"'), ("TIMESTAMP_NTZ", "12"),
    ("TIMESTAMP_TZ", '"294276-12-31 00:00:00+00"'), ("TIMESTAMP_TZ", '"2024-01-01 10:00:00 Europe/Paris"'),
    ("ARRAY", "{}"), ("ARRAY", '"[1]"'), ("OBJECT", "[]"), ("OBJECT", "1"), ("NUMBER(5,0) NOT NULL", "null"),
]


def test_taken_values_read_back_exactly(server: Server) -> None:
    columns = ", ".join(f"C{number} {kind}" for number, (kind, *_) in enumerate(TAKEN))
    server.sql(f"CREATE TABLE T ({columns})")
    channel = server.channel("T")
    channel.open()
    row = "{" + ", ".join(f'"C{number}": {text}' for number, (_, text, *_) in enumerate(TAKEN)) + "}\n"
    channel.append(row.encode(), "fast")
    channel.wait("fast")
    channel.append(row.encode() + b'{"NOPE": 1}\n', "slow")
    status = channel.wait("slow")
    assert (status["rows_inserted"], status["rows_errors"]) == (2, 1)
    reads = ", ".join(read.replace("C", f"C{number}", 1) for number, (_, _, read, _) in enumerate(TAKEN))
    wanted = [expected for *_, expected in TAKEN]
    for found in server.sql(f"SELECT {reads} FROM T"):
        for number, (one, expected) in enumerate(zip(found, wanted, strict=True)):
            assert one == expected, TAKEN[number]


def test_refused_values_are_counted_and_their_neighbours_land(server: Server) -> None:
    columns = ", ".join(f"C{number} {kind.removesuffix(' NOT NULL')}" for number, (kind, _) in enumerate(REFUSED))
    server.sql(f"CREATE TABLE T (ID NUMBER(5,0), {columns})")
    last = len(REFUSED) - 1
    server.sql(f"ALTER TABLE T ALTER COLUMN C{last} SET NOT NULL")
    channel = server.channel("T")
    channel.open()
    for number, (kind, text) in enumerate(REFUSED):
        bad = f'{{"ID": {number}, "C{last}": 1, "C{number}": {text}}}\n' if number != last else f'{{"ID": {number}}}\n'
        good = f'{{"ID": {number}, "C{last}": 1}}\n'
        channel.append((good + bad + good).encode(), f"{number:04d}")
        status = channel.wait(f"{number:04d}")
        assert (status["rows_inserted"], status["rows_errors"]) == (2 * number + 2, number + 1), (kind, text, status)
        assert f"'C{number}'" in status["last_error_message"], status
        assert status["last_error_offset_upper_bound"] == f"{number:04d}"


@pytest.mark.parametrize(
    "line", [b'{"ID": 1, "EXTRA": 2}', b'{"id": 1}', b'{"ID": 1', b"[1]", b"12", b'{"ID": 01}', b'{"N": "\xff"}'],
)
def test_lines_that_are_no_row_of_the_table(server: Server, line: bytes) -> None:
    server.sql("CREATE TABLE T (ID NUMBER(5,0), N VARCHAR)")
    channel = server.channel("T")
    channel.open()
    channel.append(b'{"ID": 1}\n' + line + b'\n{"ID": 2}\n', "1")
    status = channel.wait("1")
    assert (status["rows_inserted"], status["rows_errors"], status["rows_parsed"]) == (2, 1, 3), status


def test_quoted_names_match_exactly(server: Server) -> None:
    server.sql('CREATE TABLE "tä b" ("lower" NUMBER(5,0), "Ünï ""q""" VARCHAR)')
    channel = server.channel("tä b")
    channel.open()
    row = json.dumps({"lower": 1, 'Ünï "q"': "x"}).encode() + b"\n"
    channel.append(row + b'{"LOWER": 1}\n', "1")
    assert channel.wait("1")["rows_errors"] == 1
    assert server.sql('SELECT * FROM "tä b"') == [["1", "x"]]


def test_rows_refused_on_request(server: Server) -> None:
    server.sql("CREATE TABLE T (ID NUMBER(5,0))")
    server.faults(reject_rows_matching='"ID": ?7')
    channel = server.channel("T")
    channel.open()
    channel.append([{"ID": 6}, {"ID": 7}], "1")
    assert channel.wait("1")["rows_errors"] == 1
