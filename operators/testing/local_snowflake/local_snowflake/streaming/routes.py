"""The streaming routes: HTTP in, `service` behind, the service's JSON out."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from local_snowflake.auth import Auth, Denied
from local_snowflake.streaming.blobs import BUCKET, unchunk
from local_snowflake.streaming.channels import Key, Refused
from local_snowflake.streaming.service import Streaming, parse_json

_PIPE = "/v2/streaming/databases/{database}/schemas/{schema}/pipes/{pipe}"
_DATA = "/v2/streaming/data/databases/{database}/schemas/{schema}/pipes/{pipe}/channels/{channel}"
_EXPIRY_MS = 3_600_000

Handler = Callable[[Request], Awaitable[Response]]


def refusal(problem: Refused) -> JSONResponse:
    """An error as the service words it; the code stands under both names that clients read."""
    body = {"code": problem.code, "error_code": problem.code, "message": problem.message}
    return JSONResponse(body, status_code=problem.status)


class Routes:
    """The handlers over one `Streaming`."""

    def __init__(self, streaming: Streaming, auth: Auth) -> None:
        self._streaming, self._auth = streaming, auth

    def routes(self) -> list[Route]:
        """The routes to mount."""
        guarded: list[tuple[str, str, Handler]] = [
            ("GET", "/v2/streaming/hostname", self._hostname),
            ("POST", f"{_PIPE}:pipe-info", self._pipe_info),
            ("POST", f"{_PIPE}:bulk-channel-status", self._status),
            ("PUT", f"{_PIPE}/channels/{{channel}}", self._open),
            ("DELETE", f"{_PIPE}/channels/{{channel}}", self._drop),
            ("POST", f"{_DATA}/rows", self._rows),
            ("POST", f"{_DATA}/filebuffer", self._files),
        ]
        return [
            *(Route(path, self._guard(handler), methods=[method]) for method, path, handler in guarded),
            Route("/oauth/token", self._token, methods=["POST"]),
            Route(f"/{BUCKET}/{{path:path}}", self._put, methods=["PUT"]),
            Route("/telemetry/send/sessionless", self._telemetry, methods=["POST"]),
            Route("/telemetry/send", self._telemetry, methods=["POST"]),
        ]

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                default = "KEYPAIR_JWT" if request.url.path.endswith("/hostname") else "OAUTH"
                self._identify(request, default)
                return await handler(request)
            except Denied as problem:
                return refusal(Refused(401, "390144", str(problem)))
            except Refused as problem:
                return refusal(problem)

        return guarded

    def _identify(self, request: Request, default: str) -> None:
        headers = dict(request.headers)
        if default == "KEYPAIR_JWT":
            scheme, _, token = headers.get("authorization", "").partition(" ")
            if headers.get("x-snowflake-authorization-token-type", default).upper() == "KEYPAIR_JWT":
                self._auth.key_pair(token, milliseconds=True)
                return
        self._auth.bearer(headers, default)

    @staticmethod
    def _key(request: Request) -> Key:
        part = request.path_params
        return Key(part["database"], part["schema"], part["pipe"], part.get("channel", ""))

    async def _hostname(self, request: Request) -> Response:
        return PlainTextResponse(request.url.hostname or "127.0.0.1")

    async def _token(self, request: Request) -> Response:
        form = await request.body()
        try:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if not token:
                fields = dict(pair.split("=", 1) for pair in form.decode().split("&") if "=" in pair)
                token = fields.get("assertion", "")
            identity = self._auth.key_pair(token, milliseconds=True)
        except Denied as problem:
            return refusal(Refused(401, "390144", str(problem)))
        return PlainTextResponse(self._auth.issue(identity, self._streaming.faults.knobs.token_ttl_s))

    async def _pipe_info(self, request: Request) -> Response:
        key = self._key(request)
        await run_in_threadpool(self._streaming.reader, key)
        location = {
            "expiry_time_ms": int(time.time() * 1000) + _EXPIRY_MS, "location_type": "S3", "use_s3_regional_url": False,
            "location": f"{BUCKET}/{secrets.token_hex(8)}/", "region": "us-east-1", "storage_endpoint": request.url.netloc,
            "creds": {"AWS_KEY_ID": "local", "AWS_SECRET_KEY": "local", "AWS_TOKEN": "local"},
        }
        stage_key = base64.b64encode(self._streaming.stage.key).decode()
        return JSONResponse({
            "rowset_stage_location": location, "durable_stage_location": location, "binary_input_format": "BASE64",
            "encryption_info": {"pipe_key": stage_key, "pipe_key_id": 1, "diversifier": "local"},
        })

    async def _open(self, request: Request) -> Response:
        options = parse_json(await request.body())
        return JSONResponse(await run_in_threadpool(self._streaming.open, self._key(request), options))

    async def _drop(self, request: Request) -> Response:
        await run_in_threadpool(self._streaming.drop, self._key(request))
        return JSONResponse({"message": "Channel successfully dropped."})

    async def _status(self, request: Request) -> Response:
        names = parse_json(await request.body()).get("channel_names") or []
        key = self._key(request)
        return JSONResponse(self._streaming.statuses(key.database, key.schema, key.pipe, names))

    async def _rows(self, request: Request) -> Response:
        limit = self._streaming.faults.knobs.max_request_bytes
        body = await _limited(request, limit)
        encoding = request.headers.get("content-encoding", "").lower()
        query = request.query_params
        done = await run_in_threadpool(
            self._streaming.append, self._key(request), body, encoding,
            query.get("continuationToken"), query.get("endOffsetToken") or query.get("offsetToken"),
        )
        return JSONResponse(done)

    async def _files(self, request: Request) -> Response:
        entries: Any = parse_json(await request.body())
        entries = entries if isinstance(entries, list) else entries.get("files") or entries.get("fragments") or []
        token = request.query_params.get("continuationToken")
        return JSONResponse(await run_in_threadpool(self._streaming.append_files, self._key(request), entries, token))

    async def _put(self, request: Request) -> Response:
        body = await request.body()
        if "aws-chunked" in request.headers.get("content-encoding", "") or "x-amz-decoded-content-length" in request.headers:
            body = await run_in_threadpool(unchunk, body)
        etag = await run_in_threadpool(self._streaming.stage.put, request.path_params["path"], body)
        return Response(headers={"ETag": f'"{etag}"', "x-amz-request-id": "local"})

    async def _telemetry(self, request: Request) -> Response:
        await request.body()
        return JSONResponse({"success": True, "message": "ok", "data": "Log Received"})


async def _limited(request: Request, limit: int) -> bytes:
    """The body; too large a one is read to its end, so that the client sees the answer, and refused."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
    if size > limit:
        raise Refused(413, "ERR_PAYLOAD_TOO_LARGE", f"the request has {size} bytes; the limit is {limit}")
    return b"".join(parts)
