"""The SQL API: results, transactions, idempotent requests, handles, and who is let in."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import KEYS, KeyPair, Server

MERGE = """
MERGE INTO DB.S.G t USING (
  SELECT ID, _OP, _SEQ, _U, LAST_VALUE(IFF(ARRAY_CONTAINS('N'::VARIANT, _U), NULL, N)) IGNORE NULLS
           OVER (PARTITION BY ID ORDER BY _SEQ) AS N
  FROM DB.S.L WHERE _SEQ <= '0009'
  QUALIFY ROW_NUMBER() OVER (PARTITION BY ID ORDER BY _SEQ DESC) = 1) s
ON t.ID = s.ID
WHEN MATCHED AND s._OP = 'd' THEN DELETE
WHEN MATCHED THEN UPDATE SET t.N = COALESCE(s.N, t.N), t._SEQ = s._SEQ
WHEN NOT MATCHED AND s._OP <> 'd' THEN INSERT (ID, N, _SEQ) VALUES (s.ID, s.N, s._SEQ)
"""


@pytest.fixture
def landing(server: Server) -> Server:
    server.sql(
        "CREATE TABLE L (ID NUMBER(19,0), N VARCHAR, _OP VARCHAR, _SEQ VARCHAR, _U ARRAY);"
        "CREATE TRANSIENT TABLE G (ID NUMBER(19,0), N VARCHAR, _SEQ VARCHAR);"
        "INSERT INTO G VALUES (3, 'old', '0000'), (4, 'gone', '0000');"
        "INSERT INTO L SELECT 1, 'a', 'i', '0001', NULL UNION ALL SELECT 1, NULL, 'u', '0002', PARSE_JSON('[\"N\"]')"
        " UNION ALL SELECT 2, 'b', 'i', '0003', NULL UNION ALL SELECT 3, 'new', 'u', '0004', NULL"
        " UNION ALL SELECT 4, NULL, 'd', '0005', NULL",
        count=4,
    )
    return server


def test_result_format(server: Server) -> None:
    server.sql("CREATE TABLE T (A NUMBER(38,0), B BOOLEAN, C TIMESTAMP_TZ, D DATE, E VARCHAR, F BINARY, V VARIANT)")
    server.sql("INSERT INTO T SELECT 1, TRUE, '2024-01-01 00:00:00 +02:00', '1970-01-03', 'x', X'0aff', PARSE_JSON('[1]')")
    body = server.post_sql("SELECT T.*, NULL AS N, 1.50::NUMBER(5,2) AS P FROM T").json()
    assert body["data"] == [["1", "true", "1704060000.000000000 1440", "2", "x", "0AFF", "[1]", None, "1.50"]]
    types = [column["type"] for column in body["resultSetMetaData"]["rowType"]]
    assert types == ["fixed", "boolean", "timestamp_tz", "date", "text", "binary", "variant", "text", "fixed"]
    assert body["resultSetMetaData"]["partitionInfo"][0]["rowCount"] == 1
    assert body["code"] == "090001" and body["statementHandle"]


def test_partitions(server: Server) -> None:
    server.faults(partition_rows=2)
    server.sql("CREATE TABLE T (A NUMBER(38,0)); INSERT INTO T VALUES (1), (2), (3), (4), (5)", count=0)
    body = server.post_sql("SELECT A FROM T ORDER BY A").json()
    assert [part["rowCount"] for part in body["resultSetMetaData"]["partitionInfo"]] == [2, 2, 1]
    url = f"{server.url}/api/v2/statements/{body['statementHandle']}"
    pages = [server.http.get(url, params={"partition": page}, headers=server.jwt_headers()).json()["data"] for page in (1, 2)]
    assert body["data"] + pages[0] + pages[1] == [[str(number)] for number in range(1, 6)]


def test_merge_in_a_transaction(landing: Server) -> None:
    body = landing.post_sql(f"BEGIN; {MERGE}; DELETE FROM L WHERE _SEQ <= '0009'; COMMIT", count=4).json()
    assert len(body["statementHandles"]) == 4
    url = f"{landing.url}/api/v2/statements/{body['statementHandles'][1]}"
    merged = landing.http.get(url, headers=landing.jwt_headers()).json()
    assert merged["stats"] == {"numRowsInserted": 2, "numRowsUpdated": 1, "numRowsDeleted": 1, "numDuplicateRowsUpdated": 0}
    assert landing.sql("SELECT ID, N, _SEQ FROM G ORDER BY ID") == [
        ["1", "a", "0002"], ["2", "b", "0003"], ["3", "new", "0004"]
    ]
    assert landing.sql("SELECT COUNT(*) FROM L") == [["0"]]


@pytest.mark.parametrize("failing", ["SELECT * FROM NOPE", "INSERT INTO G (ID) SELECT 'x'", "SELECT 1; SELEC"])
def test_a_failure_rolls_everything_back(landing: Server, failing: str) -> None:
    answer = landing.post_sql(f"BEGIN; {MERGE}; DELETE FROM L; {failing}; COMMIT", count=0)
    assert answer.status_code == 422 and answer.json()["sqlState"]
    assert landing.sql("SELECT ID, N FROM G ORDER BY ID") == [["3", "old"], ["4", "gone"]]
    assert landing.sql("SELECT COUNT(*) FROM L") == [["5"]]


def test_a_transaction_without_commit_is_rolled_back(landing: Server) -> None:
    landing.sql("BEGIN; DELETE FROM L", count=2)
    assert landing.sql("SELECT COUNT(*) FROM L") == [["5"]]


def test_ddl_commits_the_open_transaction(landing: Server) -> None:
    landing.sql("BEGIN; DELETE FROM L; ALTER TABLE G ADD COLUMN X INT; ROLLBACK", count=4)
    assert landing.sql("SELECT COUNT(*) FROM L") == [["0"]]


def test_a_merge_that_matches_a_row_twice_fails(landing: Server) -> None:
    answer = landing.post_sql("MERGE INTO G USING (SELECT 3 ID UNION ALL SELECT 3) s ON G.ID = s.ID WHEN MATCHED THEN DELETE")
    assert (answer.status_code, answer.json()["code"]) == (422, "100090")


def test_merges_at_once_all_succeed(landing: Server) -> None:
    landing.sql("CREATE TABLE K (ID NUMBER(5,0), N NUMBER(9,0)); INSERT INTO K VALUES (1, 0)", count=2)
    one = "MERGE INTO K USING (SELECT 1 ID) s ON K.ID = s.ID WHEN MATCHED THEN UPDATE SET N = K.N + 1"
    handles = [landing.post_sql(f"BEGIN; {one}; COMMIT", 3, "?async=true").json()["statementHandle"] for _ in range(12)]
    for handle in handles:
        _finish(landing, handle)
    assert landing.sql("SELECT N FROM K") == [["12"]]


def test_merging_while_rows_stream_in_and_columns_are_added(landing: Server) -> None:
    channel, busy = landing.channel("L"), True
    channel.open()

    def alter() -> None:
        number = 0
        while busy:
            landing.sql(f"ALTER TABLE L ADD COLUMN X{number} INT")
            number += 1

    other = threading.Thread(target=alter)
    other.start()
    for batch in range(10):
        channel.append([{"ID": 100 + row, "N": str(batch), "_OP": "u", "_SEQ": f"0008/{batch}"} for row in range(50)], str(batch))
        landing.sql(f"BEGIN; {MERGE}; COMMIT", count=3)
    channel.wait("9")
    busy = False
    other.join()
    landing.sql(f"BEGIN; {MERGE}; DELETE FROM L; COMMIT", count=4)
    assert landing.sql("SELECT N, COUNT(*) FROM G WHERE ID >= 100 GROUP BY N") == [["9", "50"]]


def _finish(server: Server, handle: str) -> dict:
    until = time.monotonic() + 10
    while True:
        answer = server.http.get(f"{server.url}/api/v2/statements/{handle}", headers=server.jwt_headers())
        if answer.status_code != 202:
            assert answer.status_code == 200, answer.text
            return answer.json()
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_request_runs_once(server: Server) -> None:
    server.sql("CREATE TABLE T (A INT)")
    query = f"?requestId={uuid.uuid4()}&retry=true"
    server.faults(fail=[{"route": "sql", "apply": True, "status": 500}])
    assert server.post_sql("INSERT INTO T VALUES (1)", query=query).status_code == 500
    again = server.post_sql("INSERT INTO T VALUES (1)", query=query).json()
    assert again["stats"]["numRowsInserted"] == 1
    assert server.post_sql("INSERT INTO T VALUES (1)", query=query).json()["statementHandle"] == again["statementHandle"]
    assert server.sql("SELECT COUNT(*) FROM T") == [["1"]]


def test_async_then_cancel(server: Server) -> None:
    answer = server.post_sql("SELECT COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 1)) a", query="?async=true")
    assert answer.status_code == 202 and answer.json()["code"] == "333334"
    slow = "SELECT SUM(a.A * b.A) FROM T a, T b, T c"
    server.sql("CREATE TABLE T (A INT); INSERT INTO T SELECT SEQ FROM (SELECT UNNEST(RANGE(3000)) AS SEQ)", count=2)
    handle = server.post_sql(slow, query="?async=true").json()["statementHandle"]
    url = f"{server.url}/api/v2/statements/{handle}"
    time.sleep(0.2)
    assert server.http.get(url, headers=server.jwt_headers()).status_code == 202
    assert server.http.post(url + "/cancel", headers=server.jwt_headers()).status_code == 200
    time.sleep(0.3)
    ended = server.http.get(url, headers=server.jwt_headers())
    assert (ended.status_code, ended.json()["code"]) == (422, "000604")


def test_statement_count_must_match(server: Server) -> None:
    answer = server.post_sql("SELECT 1; SELECT 2")
    assert (answer.status_code, answer.json()["code"]) == (422, "000008")


def test_bindings(server: Server) -> None:
    bindings = {"1": {"type": "FIXED", "value": "12"}, "2": {"type": "TEXT", "value": "x"}, "3": {"type": "TEXT", "value": None}}
    assert server.sql("SELECT ? + 1, ?, ?", bindings=bindings) == [["13", "x", None]]


def test_who_we_are(server: Server) -> None:
    found = server.sql("SELECT CURRENT_ACCOUNT(), CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()", role="R", warehouse="W")
    assert found == [["ACME", "LOADER", "R", "W"]]
    assert server.sql("SELECT CURRENT_VERSION()")[0][0]


def test_ddl_and_metadata(server: Server) -> None:
    server.sql('CREATE TRANSIENT TABLE IF NOT EXISTS "tä" ("id" NUMBER(19,0) NOT NULL, O OBJECT, A ARRAY, T TIMESTAMP_NTZ(6), S VARCHAR(134217728))')
    server.sql('ALTER TABLE "tä" ADD COLUMN IF NOT EXISTS "id" INT, "b" BINARY(67108864)')
    server.sql('ALTER TABLE "tä" ALTER COLUMN "id" DROP NOT NULL')
    server.sql('ALTER TABLE "tä" RENAME COLUMN O TO "o"')
    server.sql('ALTER TABLE "tä" ALTER COLUMN "id" SET DATA TYPE NUMBER(38,0)')
    described = [(row[0], row[1], row[3]) for row in server.sql('DESCRIBE TABLE DB.S."tä"')]
    assert described == [
        ("id", "NUMBER(38,0)", "Y"), ("o", "OBJECT", "Y"), ("A", "ARRAY", "Y"), ("T", "TIMESTAMP_NTZ(6)", "Y"),
        ("S", "VARCHAR(134217728)", "Y"), ("b", "BINARY(67108864)", "Y"),
    ]
    assert server.sql(
        "SELECT COLUMN_NAME, DATA_TYPE, NUMERIC_PRECISION FROM DB.INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'tä' "
        "AND DATA_TYPE IN ('NUMBER', 'ARRAY') ORDER BY ORDINAL_POSITION"
    ) == [["id", "NUMBER", "38"], ["A", "ARRAY", None]]
    assert [row[2] for row in server.sql('SHOW COLUMNS IN TABLE "tä"')] == ["id", "o", "A", "T", "S", "b"]
    assert [row[1] for row in server.sql("SHOW TABLES IN SCHEMA DB.S")] == ["tä"]
    answer = server.post_sql('ALTER TABLE "tä" ALTER COLUMN "id" SET DATA TYPE VARCHAR')
    assert (answer.status_code, answer.json()["code"]) == (422, "002108")
    server.sql("TRUNCATE TABLE IF EXISTS NOPE")
    server.sql('DROP TABLE "tä"')
    assert server.post_sql('SELECT 1 FROM "tä"').json()["code"] == "002003"


def test_semi_structured_functions(server: Server) -> None:
    server.sql("CREATE TABLE T (O OBJECT, A ARRAY, V VARIANT)")
    server.sql("INSERT INTO T SELECT OBJECT_CONSTRUCT('a', 1, 'b', NULL), PARSE_JSON('[\"x\",\"y\"]'), TO_VARIANT('v')")
    assert server.sql(
        "SELECT O, OBJECT_DELETE(O, 'a'), OBJECT_INSERT(O, 'c', 2), GET(O, 'a'), ARRAY_SIZE(A), "
        "ARRAY_CONTAINS('x'::VARIANT, A), ARRAY_CONTAINS('z'::VARIANT, A), V, A[0] FROM T"
    ) == [['{"a":1}', "{}", '{"a":1,"c":2}', "1", "2", "true", "false", '"v"', '"x"']]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 10}, {"exp": int(time.time()) + 7300}, {"iss": "ACME.LOADER"}, {"sub": "ACME.OTHER"},
        {"sub": "acme.loader", "iss": "acme.loader.SHA256:x"}, {"iat": "x"},
    ],
    ids=["expired", "too-long", "no-fingerprint", "other-subject", "lower-case", "no-times"],
)
def test_malformed_jwts_are_401(server: Server, claims: dict) -> None:
    headers = server.jwt_headers(KEYS.jwt(**claims))
    answer = server.http.post(server.url + "/api/v2/statements", json={"statement": "SELECT 1"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "390144")


def test_with_a_public_key_signatures_are_verified(start, tmp_path) -> None:
    (tmp_path / "key.pub").write_bytes(KEYS.public_pem())
    server = start("--public-key", str(tmp_path / "key.pub"))
    stranger = KeyPair()
    forged = stranger.jwt(iss=f"ACME.LOADER.{KEYS.fingerprint}")
    statuses = [
        server.http.post(
            server.url + "/api/v2/statements", json={"statement": "SELECT 1"}, headers=server.jwt_headers(token)
        ).status_code
        for token in (KEYS.jwt(), stranger.jwt(), forged)
    ]
    assert statuses == [200, 401, 401]


def test_several_sessions_create_one_table(server: Server) -> None:
    def create(n: int) -> str:
        return server.post_sql(f"CREATE TABLE IF NOT EXISTS RACE_{n // 8} (N NUMBER)").json()["code"]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(create, range(64))) == {"090001"}
