"""`/_local`: what a test asks of this program itself, never a part of Snowflake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_snowflake.faults import Faults
from local_snowflake.instance import Instance
from local_snowflake.naming import qualified
from local_snowflake.streaming.channels import Refused
from local_snowflake.streaming.service import Streaming, parse_json


class Control:
    """The handlers."""

    def __init__(self, instance: Instance, streaming: Streaming, faults: Faults, forget: Callable[[], None]) -> None:
        self._instance, self._streaming, self._faults, self._forget = instance, streaming, faults, forget

    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [
            Route("/_local/health", lambda _: JSONResponse({"status": "ok"})),
            Route("/_local/state", self._state),
            Route("/_local/faults", self._change, methods=["POST"]),
            Route("/_local/reset", self._reset, methods=["POST"]),
            Route("/_local/settle", self._settle, methods=["POST"]),
        ]

    async def _state(self, request: Request) -> Response:
        faults = self._faults
        state: dict[str, Any] = {
            **asdict(faults.knobs), "fail": [asdict(one) for one in faults.failures],
            "requests": dict(faults.requests), "failed": dict(faults.failed),
            "databases": self._instance.databases(),
            "channels": [
                {**one.status(), "pending_batches": one.pending, "client_sequencer": one.client_sequencer}
                for one in self._streaming.channels.all()
            ],
        }
        if request.query_params.get("tables"):
            state["tables"] = await run_in_threadpool(self._counts)
        return JSONResponse(state)

    async def _change(self, request: Request) -> Response:
        try:
            change = parse_json(await request.body())
            if change.pop("clear_failures", False):
                self._faults.clear_failures()
            self._faults.update(change)
        except (ValueError, TypeError, Refused) as problem:
            return JSONResponse({"message": str(problem)}, status_code=400)
        return JSONResponse({**asdict(self._faults.knobs), "fail": [asdict(one) for one in self._faults.failures]})

    async def _reset(self, request: Request) -> Response:
        keep = parse_json(await request.body()).get("keep_data", False)
        self._faults.clear()
        if not keep:
            self._forget()
            for database in self._instance.databases():
                await run_in_threadpool(self._instance.drop_database, database)
        return JSONResponse({"status": "ok"})

    async def _settle(self, request: Request) -> Response:
        seconds = float(request.query_params.get("timeout_s", "30"))
        idle = await run_in_threadpool(self._streaming.wait_idle, seconds)
        counted = await run_in_threadpool(self._streaming.count_unread) if idle else {}
        return JSONResponse({"idle": idle, "counted": counted}, status_code=200 if idle else 504)

    def _counts(self) -> dict[str, int]:
        conn = self._instance.cursor()
        found = conn.execute(
            "SELECT database_name, schema_name, table_name FROM duckdb_tables() "
            "WHERE NOT internal AND NOT temporary AND schema_name NOT IN ('main', '_fs_information_schema')"
        ).fetchall()
        return {
            ".".join(name): conn.execute(f"SELECT count(*) FROM {qualified(*name)}").fetchone()[0]
            for name in found if name[0] in self._instance.databases()
        }
