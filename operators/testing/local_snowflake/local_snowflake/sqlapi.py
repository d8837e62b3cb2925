"""The SQL API: `/api/v2/statements`, over the jobs.

```text
 POST ?requestId=&retry=&async=   200 result · 202 still running · 422 the statement failed · 401
 GET  /{handle}?partition=        the same, for a job that exists; 404 otherwise
 POST /{handle}/cancel
```
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import snowflake.connector.errors as sf
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_snowflake.auth import Auth, Denied, Identity
from local_snowflake.connector import binding
from local_snowflake.dialect import Context
from local_snowflake.faults import Faults
from local_snowflake.jobs import Job, Jobs
from local_snowflake.results import Result, packed
from local_snowflake.streaming.channels import Refused
from local_snowflake.streaming.service import parse_json

_PATH = "/api/v2/statements"


class SqlApi:
    """The handlers."""

    def __init__(self, jobs: Jobs, auth: Auth, faults: Faults) -> None:
        self._jobs, self._auth, self._faults = jobs, auth, faults

    def routes(self) -> list[Route]:
        """The routes to mount."""
        return [
            Route(_PATH, self._submit, methods=["POST"]),
            Route(_PATH + "/{handle}", self._get, methods=["GET"]),
            Route(_PATH + "/{handle}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _submit(self, request: Request) -> Response:
        try:
            identity = self._identify(request)
            body = parse_json(await request.body())
            job = self._start(request, body, identity)
        except Denied as problem:
            return _error(401, "390144", str(problem))
        except Refused as problem:
            return _error(problem.status, "391902", problem.message)
        except (ValueError, KeyError, TypeError) as problem:
            return _error(400, "391902", f"the request is malformed: {problem}")
        if request.query_params.get("async", "").lower() == "true":
            return self._running(job, "Asynchronous execution in progress.")
        wait = self._faults.knobs.sync_wait_ms / 1000
        limit = float(body.get("timeout") or 0)
        if not await _finished(job, min(wait, limit) if limit else wait):
            if limit and limit <= wait:
                self._jobs.cancel(job)
                await _finished(job, 5)
            return await self._answer(job, request) if job.done.done() else self._running(job, "Statement is running.")
        return await self._answer(job, request)

    async def _get(self, request: Request) -> Response:
        try:
            self._identify(request)
        except Denied as problem:
            return _error(401, "390144", str(problem))
        job = self._jobs.get(request.path_params["handle"])
        if job is None:
            return _error(404, "391404", "no statement has this handle")
        if not job.done.done():
            return self._running(job, "Asynchronous execution in progress.")
        return await self._answer(job, request)

    async def _cancel(self, request: Request) -> Response:
        try:
            self._identify(request)
        except Denied as problem:
            return _error(401, "390144", str(problem))
        job = self._jobs.get(request.path_params["handle"])
        if job is None:
            return _error(404, "391404", "no statement has this handle")
        self._jobs.cancel(job)
        body = {"code": "000604", "sqlState": "57014", "message": "successfully canceled", **_place(job)}
        return JSONResponse(body)

    def _identify(self, request: Request) -> Identity:
        return self._auth.bearer(dict(request.headers), "KEYPAIR_JWT")

    def _start(self, request: Request, body: dict[str, Any], identity: Identity) -> Job:
        bindings = body.get("bindings") or {}
        params = [binding(bindings[str(position)]) for position in range(1, len(bindings) + 1)]
        context = Context(identity.account, identity.user)
        context.role = body.get("role") or context.role
        context.warehouse = body.get("warehouse") or context.warehouse
        query = request.query_params
        request_id = query.get("requestId")
        if request_id is not None:
            uuid.UUID(request_id)
        return self._jobs.submit(body, context, request_id, query.get("retry", "").lower() == "true", params)

    async def _answer(self, job: Job, request: Request) -> Response:
        if job.failure is not None:
            return _failed(job, job.failure)
        size = self._faults.knobs.partition_rows
        if job.children:
            return JSONResponse(_several(job))
        if job.result is None:
            return _error(404, "391404", "the result of this statement is gone")
        partition = int(request.query_params.get("partition", "0"))
        pages = len(job.result.partitions(size))
        if not 0 <= partition < pages:
            return _error(400, "391902", f"there is no partition {partition}")
        data = await run_in_threadpool(job.result.data, partition, size)
        if partition:
            body = await run_in_threadpool(packed, data)
            return Response(body, media_type="application/json", headers={"Content-Encoding": "gzip"})
        return JSONResponse(_result(job, job.result, data, size))

    @staticmethod
    def _running(job: Job, message: str) -> Response:
        return JSONResponse({"code": "333334", "message": message, **_place(job)}, status_code=202)


def _place(job: Job) -> dict[str, Any]:
    return {"statementHandle": job.handle, "statementStatusUrl": f"{_PATH}/{job.handle}"}


def _done(job: Job) -> dict[str, Any]:
    return {
        "code": "090001", "sqlState": "00000", "message": "Statement executed successfully.",
        "createdOn": job.created_ms, **_place(job),
    }


def _result(job: Job, result: Result, data: list, size: int) -> dict[str, Any]:
    body = {"resultSetMetaData": result.meta(size), "data": data, **_done(job)}
    return body | {"stats": result.stats} if result.stats else body


def _several(job: Job) -> dict[str, Any]:
    column = {
        "name": "multiple statement execution", "database": "", "schema": "", "table": "", "nullable": False,
        "type": "text", "byteLength": 16777216, "length": 16777216, "scale": None, "precision": None, "collation": None,
    }
    meta = {
        "numRows": 1, "format": "jsonv2", "rowType": [column],
        "partitionInfo": [{"rowCount": 1, "uncompressedSize": 57}],
    }
    data = [["Multiple statements executed successfully."]]
    return {"resultSetMetaData": meta, "data": data, "statementHandles": job.children, **_done(job)}


def _failed(job: Job, failure: sf.Error) -> JSONResponse:
    number = failure.errno if failure.errno and failure.errno > 0 else 0
    body = {"code": f"{number:06d}", "sqlState": failure.sqlstate or "XX000", "message": failure.raw_msg or str(failure)}
    status = 408 if number == 604 and not job.canceled else 422
    return JSONResponse({**body, **_place(job)}, status_code=status)


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status_code=status)


async def _finished(job: Job, seconds: float) -> bool:
    """Waits for a job; whether it is done."""
    try:
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(job.done)), seconds)
    except TimeoutError:
        return False
    return True
