"""What the streaming routes do, without HTTP: open, append, drop, and the queues behind them."""

from __future__ import annotations

import gzip
import json
import threading
import time
from typing import Any

import zstandard

from local_snowflake.faults import Faults
from local_snowflake.instance import Instance
from local_snowflake.streaming.blobs import Stage
from local_snowflake.streaming.channels import SUFFIX, Channel, Channels, Key, Refused, erase, save
from local_snowflake.streaming.commit import Batch, CommitQueue, Unread
from local_snowflake.streaming.rows import Decoded, RowReader, count_lines

_MAX_PLAIN = 1 << 30


def decompress(body: bytes, encoding: str) -> bytes:
    """A body without its Content-Encoding."""
    try:
        if encoding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
                return reader.read(_MAX_PLAIN)
        if encoding == "gzip":
            return gzip.decompress(body)
    except (zstandard.ZstdError, OSError, EOFError) as problem:
        raise Refused(400, "ERR_INVALID_REQUEST", f"the body is not valid {encoding}") from problem
    if encoding not in ("", "identity"):
        raise Refused(415, "ERR_UNSUPPORTED_ENCODING", "Content-Encoding is one of: zstd, gzip, identity")
    return body


class Streaming:
    """The channels over an instance."""

    def __init__(self, instance: Instance, faults: Faults) -> None:
        self._instance, self.faults = instance, faults
        self.channels, self.stage = Channels(), Stage()
        self._queues: dict[str, CommitQueue] = {}
        self._readers: dict[tuple[str, str, str], tuple[list, RowReader]] = {}
        self._lock = threading.Lock()
        instance.on_attach.append(self._attached)
        instance.on_detach.append(self._detached)
        instance.on_table_gone.append(self._table_gone)
        faults.on_change.append(lambda: [queue.nudge() for queue in list(self._queues.values())])

    def reader(self, key: Key) -> RowReader:
        """The reader of the table behind a default pipe."""
        if not key.pipe.endswith(SUFFIX):
            raise Refused(404, "ERR_PIPE_DOES_NOT_EXIST_OR_NOT_AUTHORIZED", f"only default pipes exist: <TABLE>{SUFFIX}")
        columns = self._instance.catalog.columns(key.database, key.schema, key.table)
        if not columns:
            raise Refused(
                404, "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED",
                f"table '{key.database}.{key.schema}.{key.table}' does not exist or is not authorized",
            )
        place = (key.database, key.schema, key.table)
        with self._lock:
            known = self._readers.get(place)
        if known is None or known[0] is not columns:
            known = (columns, RowReader(columns))
            with self._lock:
                self._readers[place] = known
        return known[1]

    def open(self, key: Key, request: dict[str, Any]) -> dict[str, Any]:
        """Opens a channel, which fences its previous writer."""
        self.reader(key)
        queue = self._queues[key.database]
        with queue.busy:
            channel = self.channels.get(key)
            create = channel is None
            channel = channel or Channel(key)
            with channel.lock:
                if channel.pending:
                    if request.get("fail_on_uncommitted_rows"):
                        raise Refused(409, "ERR_CHANNEL_HAS_UNCOMMITTED_DATA", "the channel has rows that are not committed yet")
                    if self.faults.knobs.on_reopen == "flush":
                        queue.flush(channel)
                    queue.drop(channel)
                values: dict[str, Any] = {"client_sequencer": channel.client_sequencer + 1}
                if request.get("offset_token") is not None:
                    values["committed_token"] = str(request["offset_token"])
                save(self._instance.cursor(), channel, values, create)
                for name, value in values.items():
                    setattr(channel, name, value)
                channel.row_sequencer, channel.open, channel.valid = 0, True, True
                self.channels.put(channel)
                return {"next_continuation_token": self.channels.token(channel), "channel_status": channel.status()}

    def need(self, key: Key) -> Channel:
        """The channel, or the error that it is not there."""
        channel = self.channels.get(key)
        if channel is None:
            raise Refused(
                404, "ERR_CHANNEL_DOES_NOT_EXIST_OR_IS_NOT_AUTHORIZED", "the channel does not exist; open it first"
            )
        return channel

    def append(self, key: Key, body: bytes, encoding: str, token: str | None, end: str | None) -> dict[str, Any]:
        """Accepts the rows of one request: 200 says that they wait, not that they are durable."""
        reader, channel = self.reader(key), self.need(key)
        self._check(channel, token)
        if self.faults.knobs.discard == "later":
            return self._accept(channel, token, [(Unread(body, encoding), end)])
        return self._accept(channel, token, [(self._decode(reader, decompress(body, encoding)), end)])

    def append_files(self, key: Key, entries: list[dict[str, Any]], token: str | None) -> dict[str, Any]:
        """Accepts rows that were put on the stage before."""
        reader, channel = self.reader(key), self.need(key)
        self._check(channel, token)
        decoded = []
        for entry in entries:
            packed = self.stage.fragment(entry)
            if packed is None:
                raise Refused(400, "ERR_FILE_NOT_FOUND", "a named file is not on the stage")
            plain = decompress(packed, "zstd" if packed[:4] == b"\x28\xb5\x2f\xfd" else "")
            decoded.append((self._decode(reader, plain), entry.get("fragment_end_offset_token")))
        return self._accept(channel, token, decoded)

    def drop(self, key: Key) -> None:
        """Removes a channel and its offsets."""
        channel = self.need(key)
        queue = self._queues[key.database]
        with queue.busy:
            queue.drop(channel)
            erase(self._instance.cursor(), [key])
            self.channels.remove([key])

    def statuses(self, database: str, schema: str, pipe: str, names: list[str]) -> dict[str, Any]:
        """The status of the named channels; those that do not exist are absent."""
        found = {name: self.channels.get(Key(database, schema, pipe, name)) for name in names}
        return {"channel_statuses": {name: channel.status() for name, channel in found.items() if channel}}

    def wait_idle(self, seconds: float) -> bool:
        """Waits until nothing is left to commit; whether that came about."""
        until = time.monotonic() + seconds
        while any(channel.pending for channel in self.channels.all()):
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def count_unread(self) -> dict[str, int]:
        """Counts the rows that were discarded unread: requests, rows, and their bytes before compression."""
        total = {"requests": 0, "rows": 0, "plain_bytes": 0}
        for channel in self.channels.all():
            queue = self._queues[channel.key.database]
            with queue.busy:
                unread, channel.unread = channel.unread, []
                if not unread:
                    continue
                rows = 0
                for one in unread:
                    plain = decompress(one.body, one.encoding)
                    rows += count_lines(plain)
                    total["plain_bytes"] += len(plain)
                values = {"rows_inserted": channel.rows_inserted + rows, "rows_parsed": channel.rows_parsed + rows}
                save(self._instance.cursor(), channel, values)
                channel.rows_inserted, channel.rows_parsed = values["rows_inserted"], values["rows_parsed"]
            total["requests"] += len(unread)
            total["rows"] += rows
        return total

    def _decode(self, reader: RowReader, plain: bytes) -> Decoded | int:
        knobs = self.faults.knobs
        if knobs.discard:
            return count_lines(plain)
        conn = self._instance.cursor()
        try:
            return reader.read(conn, plain, knobs.reject_rows_matching)
        finally:
            conn.close()

    def _check(self, channel: Channel, token: str | None) -> bool:
        return self.channels.check(channel, token, self.faults.knobs.resent_token == "dedupe")

    def _accept(self, channel: Channel, token: str | None, decoded: list[tuple[Decoded | Unread | int, str | None]]) -> dict:
        with channel.lock:
            if self._check(channel, token):
                channel.row_sequencer += 1
                queue = self._queues[channel.key.database]
                for rows, end in decoded:
                    if isinstance(rows, int):
                        queue.add(Batch(channel, None, rows, 0, None, end, discarded=rows))
                    elif isinstance(rows, Unread):
                        queue.add(Batch(channel, None, 0, 0, None, end, unread=rows))
                    else:
                        queue.add(Batch(channel, rows.table, rows.parsed, rows.errors, rows.message, end))
            return {"next_continuation_token": self.channels.token(channel)}

    def _attached(self, database: str) -> None:
        self.channels.load(self._instance.cursor(), database)
        self._queues[database] = CommitQueue(self._instance, database, self.faults)
        self._queues[database].start()

    def _detached(self, database: str) -> None:
        queue = self._queues.pop(database)
        with queue.busy:
            queue.stop()
            self.channels.remove([one.key for one in self.channels.all() if one.key.database == database])

    def _table_gone(self, database: str, schema: str, table: str | None) -> None:
        queue = self._queues[database]
        with queue.busy:
            gone = [
                one for one in self.channels.all()
                if (one.key.database, one.key.schema) == (database, schema) and table in (None, one.key.table)
            ]
            for channel in gone:
                queue.drop(channel)
            erase(self._instance.cursor(), [channel.key for channel in gone])
            self.channels.remove([channel.key for channel in gone])


def parse_json(body: bytes) -> Any:
    """A JSON body; an empty one is an empty object."""
    try:
        return json.loads(body) if body.strip() else {}
    except ValueError as problem:
        raise Refused(400, "ERR_INVALID_REQUEST", "the body is not JSON") from problem
