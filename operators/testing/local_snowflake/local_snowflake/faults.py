"""The knobs: delays, failures and modes, read by every request and changed while it runs.

```text
 request ──> latency ──> a planned failure? ── no ──> the route
                              │ yes
                              └──> (apply: run the route, hide its answer) ──> hang, close, or answer an error
```
Latency sleeps in the event loop, so one slow route never holds up another.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ROUTES = ("hostname", "token", "pipe", "open", "rows", "status", "drop", "blob", "sql", "handle", "connector")
"""The route classes that latency and failures are set for; `*` means all of them."""

TRANSPORTS: dict[tuple, asyncio.Transport] = {}
"""The open connections by the client's address, so that a failure can close one."""

_PATTERNS = (
    (re.compile(r"^/v2/streaming/hostname$"), "hostname"),
    (re.compile(r"^/oauth/token$"), "token"),
    (re.compile(r"^/v2/streaming/data/.*/(rows|filebuffer)$"), "rows"),
    (re.compile(r":bulk-channel-status$"), "status"),
    (re.compile(r":pipe-info$"), "pipe"),
    (re.compile(r"^/v2/streaming/databases/.*/channels/[^/]+$"), "open"),
    (re.compile(r"^/api/v2/statements/"), "handle"),
    (re.compile(r"^/api/v2/statements"), "sql"),
    (re.compile(r"^/(session|queries|monitoring|fs_bucket)"), "connector"),
    (re.compile(r"^/local-snowflake-stage/"), "blob"),
)


def route_class(method: str, path: str) -> str | None:
    """The class of a request; None for this program's own routes."""
    for pattern, name in _PATTERNS:
        if pattern.search(path):
            return "drop" if name == "open" and method == "DELETE" else name
    return None


@dataclass
class Failure:
    """A planned failure of the next `times` requests of a route, after skipping `after` of them."""

    route: str
    times: int = 1
    after: int = 0
    status: int = 500
    code: str = "ERR_GENERAL_EXCEPTION_RETRY_REQUEST"
    message: str = "planned failure"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    apply: bool = False
    close: bool = False
    hang_ms: int = 0

    def payload(self) -> bytes:
        """The body of the answer."""
        if self.body is not None:
            return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()
        return json.dumps({"code": self.code, "error_code": self.code, "message": self.message}).encode()


@dataclass
class Knobs:
    """Every setting that may change while the server runs."""

    commit_delay_ms: int = 0
    commit_paused: bool = False
    latency_ms: dict[str, int] = field(default_factory=dict)
    on_reopen: str = "drop"
    resent_token: str = "stale"
    discard: bool | str = False
    reject_rows_matching: str | None = None
    max_request_bytes: int = 4 * 1024 * 1024
    token_ttl_s: int = 3600
    sync_wait_ms: int = 45_000
    partition_rows: int = 10_000


_CHOICES = {"on_reopen": ("drop", "flush"), "resent_token": ("stale", "dedupe"), "discard": (False, True, "later")}


class Faults:
    """The knobs and the planned failures, with counts of what came in."""

    def __init__(self, knobs: Knobs | None = None) -> None:
        self._start = knobs or Knobs()
        self.knobs = Knobs(**asdict(self._start))
        self.failures: list[Failure] = []
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.on_change: list = []

    def update(self, change: dict[str, Any]) -> None:
        """Sets knobs, and appends the failures of the key `fail`; ValueError names what it does not know."""
        change = dict(change)
        planned = [self._failure(one) for one in _listed(change.pop("fail", []))]
        known = {knob.name: getattr(self._start, knob.name) for knob in fields(Knobs)}
        for name, value in change.items():
            if name not in known:
                raise ValueError(f"no knob named '{name}'; there are: {', '.join([*known, 'fail', 'clear_failures'])}")
            if value not in _CHOICES.get(name, (value,)):
                raise ValueError(f"'{name}' is one of: {', '.join(map(str, _CHOICES[name]))}")
            if name == "latency_ms":
                value = value if isinstance(value, dict) else {"*": value}
                for route in value:
                    if route != "*" and route not in ROUTES:
                        raise ValueError(f"no route named '{route}'; there are: *, {', '.join(ROUTES)}")
        with self._lock:
            for name, value in change.items():
                setattr(self.knobs, name, {"*": value} if name == "latency_ms" and not isinstance(value, dict) else value)
            self.failures += planned
        for tell in self.on_change:
            tell()

    def clear(self) -> None:
        """Back to the settings of the start, without failures."""
        with self._lock:
            self.knobs, self.failures = Knobs(**asdict(self._start)), []
            self.requests.clear()
            self.failed.clear()
        for tell in self.on_change:
            tell()

    def clear_failures(self) -> None:
        """Forgets the planned failures."""
        with self._lock:
            self.failures = []

    def take(self, route: str) -> Failure | None:
        """Counts a request; the failure that is planned for it, if any."""
        with self._lock:
            self.requests[route] += 1
            for failure in self.failures:
                if failure.route not in (route, "*"):
                    continue
                if failure.after > 0:
                    failure.after -= 1
                    continue
                failure.times -= 1
                if failure.times <= 0:
                    self.failures.remove(failure)
                self.failed[route] += 1
                return failure
        return None

    def latency(self, route: str) -> float:
        """Seconds to wait before a request of a route."""
        table = self.knobs.latency_ms
        return table.get(route, table.get("*", 0)) / 1000

    @staticmethod
    def _failure(given: dict[str, Any]) -> Failure:
        unknown = set(given) - {one.name for one in fields(Failure)}
        if unknown or given.get("route") not in (*ROUTES, "*"):
            raise ValueError(f"a failure has a 'route' of: *, {', '.join(ROUTES)}; not known: {sorted(unknown)}")
        return Failure(**given)


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


class FaultMiddleware:
    """Applies latency and planned failures to every request of a known route."""

    def __init__(self, app: Any, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        route = route_class(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self._app(scope, receive, send)
        if (seconds := self._faults.latency(route)) > 0:
            await asyncio.sleep(seconds)
        failure = self._faults.take(route)
        if failure is None:
            return await self._app(scope, receive, send)
        if failure.apply:
            await self._app(scope, receive, _swallow)
        else:
            while (await receive()).get("more_body"):
                pass
        if failure.hang_ms:
            await asyncio.sleep(failure.hang_ms / 1000)
        if failure.close:
            if transport := TRANSPORTS.get(tuple(scope["client"])):
                transport.abort()
            return None
        headers = {"content-type": "application/json", **failure.headers}
        body = failure.payload()
        headers["content-length"] = str(len(body))
        raw = [(name.lower().encode(), str(value).encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": failure.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        return None


async def _swallow(message: dict) -> None:
    """Hides the answer of a request that was applied."""
