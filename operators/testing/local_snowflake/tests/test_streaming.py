"""Channels over plain REST: tokens, fencing, the commit delay, limits, and planned failures."""

from __future__ import annotations

import gzip
import threading
import time

import pytest
import requests
import zstandard
from conftest import Server


@pytest.fixture
def table(server: Server) -> Server:
    server.sql("CREATE TABLE T (ID NUMBER(19,0), N VARCHAR)")
    return server


def _count(server: Server, table: str = "T") -> int:
    return int(server.sql(f"SELECT COUNT(*) FROM {table}")[0][0])


def _code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_hostname_is_plain_text_without_a_port(server: Server) -> None:
    answer = server.http.get(server.url + "/v2/streaming/hostname", headers=server.jwt_headers())
    assert (answer.status_code, answer.text) == (200, "127.0.0.1")


@pytest.mark.parametrize("encoding", ["", "gzip", "zstd"])
def test_rows_land_and_the_token_follows(table: Server, encoding: str) -> None:
    channel = table.channel("T")
    assert channel.open()["channel_status"]["last_committed_offset_token"] is None
    body = b'{"ID":1,"N":"a"}\n\n{"ID":2,"N":"b"}\n'
    packed = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(encoding, bytes)(body)
    channel.append(packed, "0/2", **({"Content-Encoding": encoding} if encoding else {}))
    status = channel.wait("0/2")
    assert (status["rows_inserted"], status["rows_parsed"], status["rows_errors"]) == (2, 2, 0)
    assert status["channel_status_code"] == "SUCCESS"
    assert table.sql("SELECT ID, N FROM T ORDER BY ID") == [["1", "a"], ["2", "b"]]


def test_rows_are_not_visible_before_the_commit_delay(table: Server) -> None:
    table.faults(commit_delay_ms=400)
    channel = table.channel("T")
    channel.open()
    channel.append([{"ID": 1}], "1")
    assert (channel.committed(), _count(table)) == (None, 0)
    channel.wait("1")
    assert _count(table) == 1


def test_a_second_open_fences_the_first_writer(table: Server) -> None:
    first, second = table.channel("T"), table.channel("T")
    first.open()
    first.append([{"ID": 1}], "1")
    first.wait("1")
    assert second.open()["channel_status"]["last_committed_offset_token"] == "1"
    assert _code(first.post([{"ID": 2}], "2")) == (400, "STALE_CONTINUATION_TOKEN_SEQUENCER")
    second.append([{"ID": 2}], "2")
    second.wait("2")
    assert _count(table) == 2


def test_a_token_works_once(table: Server) -> None:
    channel = table.channel("T")
    used = channel.open()["next_continuation_token"]
    channel.append([{"ID": 1}], "1")
    assert _code(channel.post([{"ID": 1}], "1", token=used)) == (400, "STALE_CONTINUATION_TOKEN_SEQUENCER")
    table.faults(resent_token="dedupe")
    assert channel.post([{"ID": 1}], "1", token=used).status_code == 200
    channel.wait("1")
    assert _count(table) == 1


def test_reopening_with_uncommitted_rows(table: Server) -> None:
    table.faults(commit_paused=True)
    channel = table.channel("T")
    channel.open()
    channel.append([{"ID": 1}], "1")
    assert channel.open(409, fail_on_uncommitted_rows=True)["code"] == "ERR_CHANNEL_HAS_UNCOMMITTED_DATA"
    assert channel.open()["channel_status"]["last_committed_offset_token"] is None
    table.faults(commit_paused=False)
    channel.append([{"ID": 1}], "1")
    channel.wait("1")
    assert _count(table) == 1, "the dropped rows must not land"


def test_on_reopen_flush_commits_first(table: Server) -> None:
    table.faults(commit_paused=True, on_reopen="flush")
    channel = table.channel("T")
    channel.open()
    channel.append([{"ID": 1}], "1")
    assert channel.open()["channel_status"]["last_committed_offset_token"] == "1"
    assert _count(table) == 1


def test_dropping_a_channel_forgets_its_offset(table: Server) -> None:
    channel = table.channel("T")
    channel.open(offset_token="41")
    assert channel.committed() == "41"
    url = f"{table.url}/v2/streaming{channel.pipe}/channels/{channel.name}"
    assert table.http.delete(url, headers=table.scoped()).status_code == 200
    assert channel.status() is None
    assert _code(channel.post([{"ID": 1}], "1")) == (404, "ERR_CHANNEL_DOES_NOT_EXIST_OR_IS_NOT_AUTHORIZED")
    assert channel.open()["channel_status"]["last_committed_offset_token"] is None


def test_names_that_do_not_exist(table: Server) -> None:
    assert table.channel("NOPE").open(404)["code"] == "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED"
    assert table.channel("t").open(404)["code"] == "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED"
    channel = table.channel("T")
    channel.open()
    table.sql("CREATE OR REPLACE TABLE T (ID NUMBER(19,0))")
    assert _code(channel.post([{"ID": 1}], "1")) == (404, "ERR_CHANNEL_DOES_NOT_EXIST_OR_IS_NOT_AUTHORIZED")


def test_a_request_over_4_mib_is_refused_and_the_channel_goes_on(table: Server) -> None:
    channel = table.channel("T")
    channel.open()
    line = b'{"ID":1,"N":"' + b"x" * 1000 + b'"}\n'
    answer = channel.post(line * (4 * 1024 * 1024 // len(line) + 1), "1")
    assert answer.status_code == 413
    channel.append(line * (4 * 1024 * 1024 // len(line)), "2")
    channel.wait("2")


def test_bad_tokens_are_401(table: Server) -> None:
    channel = table.channel("T")
    channel.open()
    table._token = "a.b.c"
    assert channel.post([{"ID": 1}], "1").status_code == 401
    table._token = ""
    channel.append([{"ID": 1}], "1")


def test_a_column_added_while_rows_wait(table: Server) -> None:
    channel = table.channel("T")
    channel.open()
    table.faults(commit_paused=True)
    channel.append([{"ID": 1, "N": "a"}], "1")
    table.sql("ALTER TABLE T ADD COLUMN X NUMBER(38,0)")
    channel.append([{"ID": 2, "X": 10**37}], "2")
    table.faults(commit_paused=False)
    channel.wait("2")
    assert table.sql("SELECT * FROM T ORDER BY ID") == [["1", "a", None], ["2", None, str(10**37)]]


def test_planned_failures(table: Server) -> None:
    channel = table.channel("T")
    channel.open()
    table.faults(fail=[{"route": "rows", "times": 2, "status": 429, "code": "TOO_MANY"}])
    assert [_code(channel.post([{"ID": 1}], "1")) for _ in range(2)] == [(429, "TOO_MANY")] * 2
    channel.append([{"ID": 1}], "1")
    table.faults(fail=[{"route": "rows", "apply": True, "status": 500}])
    assert channel.post([{"ID": 2}], "2").status_code == 500
    channel.wait("2")
    table.faults(fail=[{"route": "status", "close": True}])
    with pytest.raises(requests.ConnectionError):
        channel.status()
    assert _count(table) == 2
    unknown = table.http.post(table.url + "/_local/faults", json={"comit_delay_ms": 1})
    assert unknown.status_code == 400 and "commit_delay_ms" in unknown.text


def test_latency_of_one_route_does_not_hold_up_another(table: Server) -> None:
    channel = table.channel("T")
    channel.open()
    table.faults(latency_ms={"rows": 600})
    late = threading.Thread(target=channel.append, args=([{"ID": 1}], "1"))
    begin = time.monotonic()
    late.start()
    time.sleep(0.05)
    assert requests.get(table.url + "/_local/health", timeout=5).status_code == 200
    assert channel.committed() is None
    assert time.monotonic() - begin < 0.4
    late.join()
    assert time.monotonic() - begin >= 0.6


def test_discard_counts_and_commits_without_storing(table: Server) -> None:
    table.faults(discard=True, commit_delay_ms=50)
    channel = table.channel("T")
    channel.open()
    channel.append([{"ID": 1}, {"ID": 2}], "2")
    assert channel.wait("2")["rows_inserted"] == 2
    assert _count(table) == 0


def test_what_is_discarded_unread_is_counted_when_settled(table: Server) -> None:
    table.faults(discard="later")
    channels = [table.channel("T", name) for name in ("c1", "c2")]
    for number, channel in enumerate(channels):
        channel.open()
        channel.append([{"ID": 1}, {"ID": 2}], "1")
        body = zstandard.compress(b'{"ID": 3}\n' * (number + 1), 1)
        channel.append(body, "2", **{"Content-Encoding": "zstd"})
        assert channel.wait("2")["rows_inserted"] == 0
    settled = table.http.post(table.url + "/_local/settle").json()["counted"]
    assert settled == {"requests": 4, "rows": 7, "plain_bytes": 4 * 10 + 3 * 10}
    assert [channel.status()["rows_inserted"] for channel in channels] == [3, 4]
    assert table.http.post(table.url + "/_local/settle").json()["counted"]["rows"] == 0
    # A new opening goes on from the token.
    assert channels[0].open()["channel_status"]["last_committed_offset_token"] == "2"
    assert _count(table) == 0


def test_channels_of_a_table_commit_side_by_side(table: Server) -> None:
    def feed(name: str) -> None:
        channel = table.channel("T", name)
        channel.open()
        for batch in range(10):
            channel.append([{"ID": batch * 100 + row, "N": name} for row in range(100)], f"{batch:04d}")
        channel.wait("0009")

    feeders = [threading.Thread(target=feed, args=(f"c{number}",)) for number in range(4)]
    [feeder.start() for feeder in feeders]
    [feeder.join() for feeder in feeders]
    assert table.sql("SELECT N, COUNT(*), COUNT(DISTINCT ID) FROM T GROUP BY N ORDER BY N") == [
        [f"c{number}", "1000", "1000"] for number in range(4)
    ]
