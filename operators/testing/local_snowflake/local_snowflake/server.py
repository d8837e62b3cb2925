"""The process: sockets, the two listeners, signals, and the parent it must not outlive."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from local_snowflake import connector, dialect, tls
from local_snowflake.auth import Auth
from local_snowflake.control import Control
from local_snowflake.faults import TRANSPORTS, FaultMiddleware, Faults
from local_snowflake.instance import Instance
from local_snowflake.jobs import Jobs
from local_snowflake.options import Options
from local_snowflake.sqlapi import SqlApi
from local_snowflake.streaming.routes import Routes
from local_snowflake.streaming.service import Streaming

_LOOPBACK = "127.0.0.1"
_CLOSE_S = 1.0


class _Protocol(H11Protocol):
    """HTTP, remembering its connection so that a planned failure can cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._peer = tuple(transport.get_extra_info("peername") or ())
        TRANSPORTS[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        TRANSPORTS.pop(self._peer, None)
        super().connection_lost(exc)


def build(options: Options) -> tuple[FaultMiddleware, Instance]:
    """The application and the DuckDB under it."""
    dialect.install()
    instance = Instance(options.data, options.threads, options.memory_limit)
    faults = Faults(options.knobs)
    if options.faults:
        faults.update({"fail": options.faults})
    auth = Auth([file.read_bytes() for file in options.public_keys])
    streaming, jobs = Streaming(instance, faults), Jobs(instance)
    instance.open_existing()

    def forget() -> None:
        jobs.clear()
        connector.forget_sessions()

    routes = [
        *Control(instance, streaming, faults, forget).routes(),
        *Routes(streaming, auth).routes(),
        *SqlApi(jobs, auth, faults).routes(),
        *connector.install(instance),
    ]
    return FaultMiddleware(Starlette(routes=routes), faults), instance


def _listener(port: int) -> socket.socket:
    # With the protocol named, asyncio sets TCP_NODELAY; without it every answer would wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((_LOOPBACK, port))
    return listener


def _config(app: FaultMiddleware, **extra: str) -> uvicorn.Config:
    return uvicorn.Config(
        app, http=_Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        timeout_keep_alive=75, backlog=512, **extra,
    )


def run(options: Options) -> None:
    """Serves until a signal, or until the parent is gone."""
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, stream=sys.stderr)
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    logging.getLogger("fakesnow.server").setLevel(logging.INFO if options.verbose else logging.CRITICAL)
    if options.parent_pid:
        threading.Thread(target=_follow, args=(options.parent_pid,), daemon=True).start()
    app, instance = build(options)
    plain = _listener(options.port)
    servers = [(uvicorn.Server(_config(app)), plain)]
    lines = [f"listening http://{_LOOPBACK}:{plain.getsockname()[1]}"]
    if options.tls_port is not None:
        folder = Path(tempfile.mkdtemp(prefix="local-snowflake-"))
        certificate, key = tls.make(options.ca_file or folder / "ca.pem", folder)
        secure = _listener(options.tls_port)
        server = uvicorn.Server(_config(app, ssl_certfile=str(certificate), ssl_keyfile=str(key)))
        server.config.load()
        certificate.unlink()
        key.unlink()
        servers.append((server, secure))
        lines.append(f"listening https://{_LOOPBACK}:{secure.getsockname()[1]}")
    asyncio.run(_serve(servers, lines, options, instance))


async def _serve(servers: list, lines: list[str], options: Options, instance: Instance) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _leave, instance)
    tasks = [asyncio.create_task(server._serve(sockets=[listener])) for server, listener in servers]
    while not all(server.started for server, _ in servers):
        if any(task.done() for task in tasks):
            break
        await asyncio.sleep(0.01)
    if options.port_file:
        ports = "\n".join(line.rsplit(":", 1)[1] for line in lines)
        temporary = options.port_file.with_suffix(".tmp")
        temporary.write_text(ports + "\n")
        temporary.replace(options.port_file)
    print("\n".join(lines), flush=True)
    await asyncio.gather(*tasks)


def _leave(instance: Instance) -> None:
    """Ends the process now: what is committed is on disk, and what is not is lost, as in a crash."""
    closing = threading.Thread(target=instance.duck_conn.close, daemon=True)
    closing.start()
    closing.join(_CLOSE_S)
    os._exit(0)


def _follow(parent: int) -> None:
    """Ends the process when the parent is gone."""
    pause = threading.Event()
    while not pause.wait(0.5):
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(0)
        except PermissionError:
            continue
        if _is_zombie(parent):
            os._exit(0)


def _is_zombie(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state == "Z"
