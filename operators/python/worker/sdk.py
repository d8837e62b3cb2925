"""Hosts Snowflake's streaming SDK: channels that this process owns, and rows for them as lines that are ready."""

import concurrent.futures
import re
import time

VERSION = "1.9.1"
# What a full buffer of the SDK is told as: it asks to be tried again.
FULL = ("ReceiverSaturated", "MemoryThresholdExceeded", "MemoryThresholdExceededInContainer")
# The channel is not this process's any more.
INVALID = ("InvalidChannelError", "ClosedChannelError", "ChannelClosedByUser", "InvalidClientError", "ClosedClientError", "ChannelNotFound")


def _sdk():
    try:
        import msgspec
        import snowflake.ingest.streaming as streaming
    except Exception as error:
        raise Refused("sdk", f"snowpipe-streaming was not imported by {sys.executable}: {error}", error) from None
    found = getattr(streaming, "__version__", None)
    if found is None:
        import importlib.metadata

        found = importlib.metadata.version("snowpipe-streaming")
    if found.split(".")[:2] != VERSION.split(".")[:2]:
        raise Refused("sdk", f"snowpipe-streaming {found} of {sys.executable} is not {VERSION}")
    # That ready-made lines pass as they are is looked at, not hoped for.
    if msgspec.json.Encoder().encode_lines([msgspec.Raw(b'{"A":1}')]) != b'{"A":1}\n':
        raise Refused("sdk", f"msgspec {msgspec.__version__} changes lines that are ready")
    return msgspec, streaming


def _code(error):
    """The SDK's code of an error of its own, of any other its type."""
    return getattr(getattr(error, "error_code", None), "value", type(error).__name__)


class Host:
    """The SDK's clients, one for each pipe, and the channels that are open."""

    def __init__(self, settings):
        self.msgspec, self.streaming = _sdk()
        self.properties = settings["properties"]
        self.patience = settings["patience"]
        self.pool = concurrent.futures.ThreadPoolExecutor(16)
        self.clients, self.channels, self.generation = {}, {}, 0
        self.making = threading.Lock()
        self.calls = {"reach": self.on_reach, "open": self.on_open, "append": self.on_append, "lost": self.on_lost}

    def client(self, pipe):
        with self.making:
            kept = self.clients.get(tuple(pipe))
            if kept is None or kept.is_closed():
                name = f"etl-stream-{os.getpid()}-{len(self.clients)}"
                kept = self.streaming.StreamingIngestClient(name, *pipe, properties=self.properties)
                self.clients[tuple(pipe)] = kept
            return kept

    def told(self, error):
        """An error of the SDK, in the engine's words; its own may hold values of rows."""
        # The service's own code, which stands among the words.
        service = re.search(r"\b(?:ERR|STALE)_[A-Z_]+", str(error))
        return {"refused": {"code": _code(error), "service": service[0] if service else "", "status": getattr(error, "http_status_code", 0) or 0}}, ()

    def later(self, work, *given):
        def run():
            try:
                return work(*given)
            except Exception as error:
                return self.told(error)

        return self.pool.submit(run)

    def on_reach(self, header, body):
        return {}, ()

    def on_open(self, header, body):
        return self.later(self.open, header)

    def open(self, header):
        key = (*header["pipe"], header["channel"])
        old = self.channels.pop(key, None)
        client = self.client(header["pipe"])
        if old is not None:
            try:
                old[1].close(wait_for_flush=False, timeout_seconds=1)
            except Exception:
                # It is opened again because it is of no use.
                pass
        channel, status = client.open_channel(header["channel"])
        with self.making:
            self.generation += 1
            generation = f"{os.getpid()}.{self.generation}"
        self.channels[key] = (generation, channel)
        return {"continuation": generation, "status": self.status(status)}, ()

    def on_append(self, header, body):
        """In the order they come: a channel's rows go one after the other."""
        key = (*header["pipe"], header["channel"])
        generation, channel = self.channels.get(key, ("", None))
        if generation != header["continuation"]:
            return {"refused": {"code": "InvalidChannelError", "service": "", "status": 0}}, ()
        raw = self.msgspec.Raw
        # JSON has no line's end within a line.
        lines = [raw(line) for line in bytes(body).split(b"\n") if line]
        patience = time.monotonic() + self.patience
        while True:
            try:
                channel.append_rows(lines, header["first"], header["last"])
                break
            except Exception as error:
                if _code(error) not in FULL or time.monotonic() > patience:
                    return self.lost(key, channel, error)
                time.sleep(0.05)
        # On their way at once: the engine gathers rows by itself, and asks for them by when others were committed.
        return self.flush(key, channel) or ({}, ())

    def lost(self, key, channel, error):
        """The refusal of a channel; one that is another's now is not asked again."""
        if _code(error) in INVALID:
            self.channels[key] = ("", channel)
        return self.told(error)

    def flush(self, key, channel):
        """Has the channel send what it holds, which nothing is waited for; a refusal when it is not this process's any more."""
        try:
            channel.initiate_flush()
        except Exception as error:
            if _code(error) not in FULL:
                return self.lost(key, channel, error)

    def on_lost(self, header, body):
        """Which channels are this process's no more: only they say so, when they are told to flush. The service tells of a
        channel that another client has taken what is the new owner's."""
        lost = {}
        for name in header["channels"]:
            key = (*header["pipe"], name)
            generation, channel = self.channels.get(key, ("", None))
            refusal = self.flush(key, channel) if channel is not None else None
            if refusal:
                lost[name] = refusal[0]["refused"]["service"] or "ERR_CHANNEL_MUST_BE_REOPENED"
        return {"lost": lost}, ()

    def status(self, status):
        return {
            "channel_status_code": status.status_code,
            "last_committed_offset_token": status.latest_committed_offset_token,
            "rows_error_count": status.rows_error_count,
            "last_error_message": status.last_error_message,
            "last_error_offset_upper_bound": status.last_error_offset_token_upper_bound,
        }

    def close(self):
        # What is durable was acknowledged, and nothing else is waited for.
        for client in self.clients.values():
            client.close(wait_for_flush=False, timeout_seconds=2)


serve(Host)
