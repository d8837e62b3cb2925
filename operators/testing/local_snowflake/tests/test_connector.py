"""The official Python connector, over the same tables."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from decimal import Decimal

import pytest
import snowflake.connector
from conftest import Server


@pytest.fixture
def cursor(server: Server) -> Iterator[snowflake.connector.cursor.SnowflakeCursor]:
    connection = snowflake.connector.connect(
        user="u", password="p", account="a", host="127.0.0.1", port=server.ports[0], protocol="http",
        database="DB", schema="S", network_timeout=5, login_timeout=5,
    )
    yield connection.cursor()
    connection.close()


def test_reads_what_the_other_interfaces_wrote(server: Server, cursor) -> None:
    server.sql("CREATE TABLE T (ID NUMBER(19,0), N NUMBER(38,0), P NUMBER(10,2), TS TIMESTAMP_NTZ(6), TZ TIMESTAMP_TZ, V VARIANT)")
    channel = server.channel("T")
    channel.open()
    channel.append([
        {"ID": 1, "N": 10**37, "P": "1.50", "TS": "1969-12-31T23:59:59.5", "TZ": "2024-01-01T10:00:00+02:00", "V": {"a": 1}},
        {"ID": 2},
    ], "1")
    channel.wait("1")
    utc = datetime.timezone.utc
    first, second = cursor.execute("SELECT * FROM T ORDER BY ID").fetchall()
    assert first[:4] == (1, 10**37, Decimal("1.50"), datetime.datetime(1969, 12, 31, 23, 59, 59, 500000))
    assert first[4].astimezone(utc) == datetime.datetime(2024, 1, 1, 8, tzinfo=utc)
    assert type(first[0]) is int
    assert second == (2, None, None, None, None, None), "NULL timestamps must stay NULL"


def test_statements_and_their_errors(cursor) -> None:
    cursor.execute("CREATE TABLE T (ID INT NOT NULL PRIMARY KEY, TS TIMESTAMP_TZ)")
    cursor.execute("INSERT INTO T VALUES (1, '2024-01-01 10:00:00 +02:00')")
    cursor.execute("INSERT INTO T VALUES (%s, %s)", (1, "2024-01-01 10:00:00 +02:00"))
    assert cursor.execute("SELECT COUNT(*), COUNT(DISTINCT TS) FROM T").fetchone() == (2, 1)
    for statement, number in [
        ("INSERT INTO T (TS) VALUES (NULL)", 100072), ("SELECT * FROM NOPE", 2003), ("SELECT NOPE FROM T", 904),
        ("SELEC 1", 1003), ("CREATE TASK X AS SELECT 1", None),
    ]:
        with pytest.raises(snowflake.connector.errors.DatabaseError) as raised:
            cursor.execute(statement)
        assert number in (None, raised.value.errno), statement


def test_transactions_and_merge(cursor) -> None:
    cursor.execute("CREATE TABLE T (ID INT, N VARCHAR)")
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO T VALUES (1, 'a')")
    cursor.execute("ROLLBACK")
    assert cursor.execute("SELECT COUNT(*) FROM T").fetchone() == (0,)
    cursor.execute("BEGIN")
    merge = "MERGE INTO T USING (SELECT 1 ID, 'b' N) s ON T.ID = s.ID WHEN MATCHED THEN UPDATE SET N = s.N " \
        "WHEN NOT MATCHED THEN INSERT (ID, N) VALUES (s.ID, s.N)"
    assert cursor.execute(merge).fetchone() == (1, 0)
    assert cursor.rowcount == 1
    cursor.execute("COMMIT")
    assert cursor.execute("SELECT * FROM T").fetchall() == [(1, "b")]
