"""The commit queue of a database: accepted rows wait here, then land with their offset tokens.

Guarantees: rows of a channel land in the order they were accepted; one DuckDB transaction holds the
rows and the tokens of everything that is due; dropping what waits for a channel excludes a commit of it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from local_snowflake.contention import Attempts
from local_snowflake.errors import is_conflict
from local_snowflake.faults import Faults
from local_snowflake.instance import Instance
from local_snowflake.naming import qualified, quote
from local_snowflake.streaming.channels import Channel, now_ms, save

_ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Unread:
    """A body that is counted later."""

    body: bytes
    encoding: str


@dataclass
class Batch:
    """What one request brought."""

    channel: Channel
    table: pa.Table | None
    parsed: int
    errors: int
    message: str | None
    token: str | None
    discarded: int = 0
    unread: Unread | None = None
    accepted: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        """The rows that land, or are counted as if they did."""
        return self.discarded or (self.table.num_rows if self.table is not None else 0)


class CommitQueue(threading.Thread):
    """The thread that commits for one database."""

    def __init__(self, instance: Instance, database: str, faults: Faults) -> None:
        super().__init__(name=f"commit-{database}", daemon=True)
        self._instance, self._database, self._faults = instance, database, faults
        self._waiting: deque[Batch] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self.busy = threading.RLock()
        """Held during a commit, and by whoever must not meet one."""

    def add(self, batch: Batch) -> None:
        """Queues a batch; its channel's lock is held."""
        with self._wake:
            batch.channel.pending += 1
            self._waiting.append(batch)
            self._wake.notify()

    def nudge(self) -> None:
        """Looks again at what is due, because a knob changed."""
        with self._wake:
            self._wake.notify()

    def stop(self) -> None:
        """Ends the thread; what waits is lost, as in a crash."""
        with self._wake:
            self._stopping = True
            self._waiting.clear()
            self._wake.notify()

    def drop(self, channel: Channel) -> None:
        """Throws away what waits for a channel; `busy` is held."""
        with self._wake:
            self._waiting = deque(batch for batch in self._waiting if batch.channel is not channel)
            channel.pending = 0

    def flush(self, channel: Channel) -> None:
        """Commits what waits for a channel now; `busy` is held."""
        with self._wake:
            mine = [batch for batch in self._waiting if batch.channel is channel]
            self._waiting = deque(batch for batch in self._waiting if batch.channel is not channel)
        if mine:
            self._commit_all(mine)

    def run(self) -> None:
        while True:
            with self._wake:
                wait = self._until_due()
                while not self._stopping and (wait is None or wait > 0):
                    self._wake.wait(wait)
                    wait = self._until_due()
                if self._stopping:
                    return
            with self.busy:
                if due := self._take():
                    self._commit_all(due)

    def _until_due(self) -> float | None:
        knobs = self._faults.knobs
        if not self._waiting or knobs.commit_paused:
            return None
        return self._waiting[0].accepted + knobs.commit_delay_ms / 1000 - time.monotonic()

    def _take(self) -> list[Batch]:
        due, rows = [], 0
        with self._wake:
            while rows < _ROWS_AT_ONCE and (wait := self._until_due()) is not None and wait <= 0:
                due.append(self._waiting.popleft())
                rows += due[-1].rows
        return due

    def _keep_unread(self, batches: list[Batch]) -> None:
        for batch in batches:
            if batch.unread is not None:
                batch.channel.unread.append(batch.unread)
        self._done(batches)

    def _commit_all(self, batches: list[Batch]) -> None:
        if all(batch.unread is not None for batch in batches):
            # No transaction: there are no rows that the token must agree with, and counting stores it.
            for channel, mine in _by_channel(batches):
                for name, value in _progress(channel, mine).items():
                    setattr(channel, name, value)
            self._keep_unread(batches)
            return
        try:
            self._commit(batches)
        except duckdb.Error:
            for batch in batches:  # one at a time, so that one broken table spoils no other
                try:
                    if batch.channel.valid:
                        self._commit([batch])
                    else:
                        self._done([batch])
                except duckdb.Error:
                    batch.channel.valid = False
                    self._done([batch])

    def _done(self, batches: list[Batch]) -> None:
        with self._wake:
            for batch in batches:
                batch.channel.pending -= 1

    def _commit(self, batches: list[Batch]) -> None:
        with Attempts(self._instance.losers) as attempts:
            while True:
                conn = self._instance.cursor()
                try:
                    conn.begin()
                    news = self._write(conn, batches)
                    conn.commit()
                    break
                except duckdb.Error as problem:
                    conn.close()  # rolls back
                    if not is_conflict(problem) or not attempts.again():
                        raise
        for channel, values in news:
            for name, value in values.items():
                setattr(channel, name, value)
        self._keep_unread(batches)

    def _write(self, conn: duckdb.DuckDBPyConnection, batches: list[Batch]) -> list[tuple[Channel, dict]]:
        tables: dict[tuple[str, str], list[pa.Table]] = defaultdict(list)
        for batch in batches:
            if batch.table is not None and batch.table.num_rows:
                tables[batch.channel.key.schema, batch.channel.key.table].append(batch.table)
        for (schema, name), parts in tables.items():
            self._insert(conn, schema, name, parts)
        news = []
        for channel, mine in _by_channel(batches):
            values = _progress(channel, mine)
            save(conn, channel, values)
            news.append((channel, values))
        return news

    def _insert(self, conn: duckdb.DuckDBPyConnection, schema: str, name: str, parts: list[pa.Table]) -> None:
        by_shape: dict[pa.Schema, list[pa.Table]] = defaultdict(list)
        for part in parts:
            by_shape[part.schema].append(part)
        for shape, same in by_shape.items():
            present = {column.name for column in self._instance.catalog.columns(self._database, schema, name) or []}
            names = [column for column in shape.names if column in present] or shape.names
            columns = ", ".join(map(quote, names))
            conn.register("accepted_rows", pa.concat_tables(same))
            conn.execute(
                f"INSERT INTO {qualified(self._database, schema, name)} ({columns}) SELECT {columns} FROM accepted_rows"
            )
            conn.unregister("accepted_rows")


def _by_channel(batches: list[Batch]) -> list[tuple[Channel, list[Batch]]]:
    found: dict[int, list[Batch]] = defaultdict(list)
    for batch in batches:
        found[id(batch.channel)].append(batch)
    return [(mine[0].channel, mine) for mine in found.values()]


def _progress(channel: Channel, batches: list[Batch]) -> dict:
    """The durable fields of a channel once its batches are in."""
    values = {
        "rows_inserted": channel.rows_inserted + sum(batch.rows for batch in batches),
        "rows_parsed": channel.rows_parsed + sum(batch.parsed for batch in batches),
        "rows_error": channel.rows_error + sum(batch.errors for batch in batches),
    }
    for batch in batches:
        if batch.token is not None:
            values["committed_token"] = batch.token
        if batch.errors:
            values |= {
                "last_error_message": batch.message, "last_error_token": batch.token, "last_error_ms": now_ms()
            }
    return values
