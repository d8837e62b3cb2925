"""Channels: who may write, what was accepted, what is committed.

```text
 open ──> client sequencer + 1 ──> the previous writer's tokens are stale
 rows ──> row sequencer + 1    ──> accepted, waiting in the commit queue
 commit ──> committed token    ──> the rows are in the table, in the same transaction
```
Guarantees: the committed token and the counts are stored with the rows; continuation tokens of another
run of the server are refused, because rows accepted there and not committed are gone.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import duckdb

from local_snowflake.catalog import HIDDEN
from local_snowflake.naming import quote

SUFFIX = "-STREAMING"
"""What the default pipe of a table is called after it."""

_COLUMNS = (
    "client_sequencer", "committed_token", "rows_inserted", "rows_parsed", "rows_error",
    "last_error_message", "last_error_token", "last_error_ms", "created_ms",
)


class Refused(Exception):
    """A request that the service answers with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def stale() -> Refused:
    """The writer was fenced, or sent a token twice."""
    return Refused(400, "STALE_CONTINUATION_TOKEN_SEQUENCER", "the continuation token is stale; reopen the channel")


def now_ms() -> int:
    """The time in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Key:
    """Where a channel is."""

    database: str
    schema: str
    pipe: str
    channel: str

    @property
    def table(self) -> str:
        """The table of the default pipe."""
        return self.pipe.removesuffix(SUFFIX)


@dataclass
class Channel:
    """One channel; `lock` guards the sequencers, the commit queue guards the rest. `unread` bodies are committed and not counted."""

    key: Key
    client_sequencer: int = 0
    committed_token: str | None = None
    rows_inserted: int = 0
    rows_parsed: int = 0
    rows_error: int = 0
    last_error_message: str | None = None
    last_error_token: str | None = None
    last_error_ms: int | None = None
    created_ms: int = field(default_factory=now_ms)
    row_sequencer: int = 0
    open: bool = False
    valid: bool = True
    pending: int = 0
    unread: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self) -> dict[str, Any]:
        """The status as clients read it, under every name the field goes by."""
        key = self.key
        return {
            "database_name": key.database, "schema_name": key.schema, "pipe_name": key.pipe, "channel_name": key.channel,
            "channel_status_code": "SUCCESS" if self.valid else "ERR_CHANNEL_MUST_BE_REOPENED",
            "last_committed_offset_token": self.committed_token, "created_on_ms": self.created_ms,
            "rows_inserted": self.rows_inserted, "rows_parsed": self.rows_parsed,
            "rows_errors": self.rows_error, "rows_error_count": self.rows_error,
            "last_error_offset_upper_bound": self.last_error_token, "last_error_message": self.last_error_message,
            "last_error_timestamp_ms": self.last_error_ms, "last_error_timestamp": self.last_error_ms,
            "snowflake_avg_processing_latency_ms": 1,
        }


class Channels:
    """All channels, loaded from each database when it is attached."""

    def __init__(self) -> None:
        self._all: dict[Key, Channel] = {}
        self._lock = threading.Lock()
        self._run = secrets.token_hex(4)

    def load(self, conn: duckdb.DuckDBPyConnection, database: str) -> None:
        """Reads the channels of a database."""
        rows = conn.execute(
            f"SELECT schema_name, pipe_name, channel_name, {', '.join(_COLUMNS)} "
            f"FROM {quote(database)}.{HIDDEN}._local_channels"
        ).fetchall()
        with self._lock:
            for schema, pipe, name, *values in rows:
                key = Key(database, schema, pipe, name)
                self._all[key] = Channel(key, **dict(zip(_COLUMNS, values, strict=True)))

    def get(self, key: Key) -> Channel | None:
        """The channel, if there is one."""
        return self._all.get(key)

    def put(self, channel: Channel) -> None:
        """Adds a channel."""
        with self._lock:
            self._all[channel.key] = channel

    def all(self) -> list[Channel]:
        """Every channel."""
        with self._lock:
            return list(self._all.values())

    def remove(self, keys: list[Key]) -> None:
        """Forgets channels; what is still in the queue for them is dropped."""
        with self._lock:
            for key in keys:
                if channel := self._all.pop(key, None):
                    channel.valid = channel.open = False

    def token(self, channel: Channel) -> str:
        """The continuation token that the next request must carry."""
        return f"{self._run}_{channel.client_sequencer}_{channel.row_sequencer}"

    def check(self, channel: Channel, token: str | None, dedupe: bool) -> bool:
        """Whether a token is the expected one; False for the one just used, when `dedupe` allows that."""
        if not channel.open:
            raise Refused(409, "ERR_CHANNEL_MUST_BE_REOPENED", "the channel is not open in this run of the service")
        if not channel.valid:
            raise Refused(409, "ERR_CHANNEL_MUST_BE_REOPENED", "the channel is invalid")
        if not token:
            raise Refused(400, "ERR_MISSING_CONTINUATION_TOKEN", "continuationToken is missing")
        run, client, row = ([*token.split("_"), "", ""])[:3]
        if run != self._run:
            raise Refused(409, "ERR_CHANNEL_MUST_BE_REOPENED", "the continuation token is from before a restart")
        if client != str(channel.client_sequencer):
            raise stale()
        if row == str(channel.row_sequencer):
            return True
        if dedupe and row == str(channel.row_sequencer - 1):
            return False
        raise stale()


def save(conn: duckdb.DuckDBPyConnection, channel: Channel, values: dict[str, Any], create: bool = False) -> None:
    """Stores the durable part of a channel; part of the caller's transaction."""
    key, table = channel.key, f"{quote(channel.key.database)}.{HIDDEN}._local_channels"
    row = [values.get(name, getattr(channel, name)) for name in _COLUMNS]
    where = [key.schema, key.pipe, key.channel]
    if create:
        conn.execute(f"INSERT INTO {table} VALUES (?, ?, ?, {', '.join('?' * len(_COLUMNS))})", where + row)
    else:
        sets = ", ".join(f"{name} = ?" for name in _COLUMNS)
        conn.execute(
            f"UPDATE {table} SET {sets} WHERE schema_name = ? AND pipe_name = ? AND channel_name = ?", row + where
        )


def erase(conn: duckdb.DuckDBPyConnection, keys: list[Key]) -> None:
    """Deletes channels and their offsets from the database."""
    for key in keys:
        conn.execute(
            f"DELETE FROM {quote(key.database)}.{HIDDEN}._local_channels "
            "WHERE schema_name = ? AND pipe_name = ? AND channel_name = ?",
            [key.schema, key.pipe, key.channel],
        )
