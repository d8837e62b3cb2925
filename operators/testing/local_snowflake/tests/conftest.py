"""Starts servers for the tests, and speaks to them as the real clients do."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

HOME = Path(__file__).resolve().parents[1]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class KeyPair:
    """An RSA key, and the JWTs of a user who has it."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(spki).digest()).decode()

    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def private_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def jwt(self, **claims: object) -> str:
        now = int(time.time())
        body = {"iss": f"ACME.LOADER.{self.fingerprint}", "sub": "ACME.LOADER", "iat": now, "exp": now + 3000, **claims}
        head = json.dumps({"alg": "RS256", "typ": "JWT"})
        signed = f"{_b64(head.encode())}.{_b64(json.dumps(body).encode())}"
        return f"{signed}.{_b64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


KEYS = KeyPair()


class Channel:
    """An open channel, driven by hand."""

    def __init__(self, server: Server, table: str, name: str, database: str = "DB", schema: str = "S") -> None:
        self.server, self.name = server, name
        self.pipe = f"/databases/{quote(database, '')}/schemas/{quote(schema, '')}/pipes/{quote(table, '')}-STREAMING"
        self.token = ""

    def open(self, expect: int = 200, **body: object) -> dict:
        url = f"/v2/streaming{self.pipe}/channels/{self.name}"
        answer = self.server.http.put(self.server.url + url, json=body, headers=self.server.scoped())
        assert answer.status_code == expect, answer.text
        self.token = answer.json().get("next_continuation_token", "")
        return answer.json()

    def post(self, rows: list | bytes, end: str, token: str | None = None, **headers: str) -> requests.Response:
        body = rows if isinstance(rows, bytes) else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        answer = self.server.http.post(
            f"{self.server.url}/v2/streaming/data{self.pipe}/channels/{self.name}/rows",
            params={"continuationToken": self.token if token is None else token, "startOffsetToken": end, "endOffsetToken": end},
            data=body, headers={**self.server.scoped(), "Content-Type": "application/x-ndjson", **headers},
        )
        if answer.status_code == 200:
            self.token = answer.json()["next_continuation_token"]
        return answer

    def append(self, rows: list | bytes, end: str, **headers: str) -> None:
        answer = self.post(rows, end, **headers)
        assert answer.status_code == 200, answer.text

    def status(self) -> dict | None:
        answer = self.server.http.post(
            f"{self.server.url}/v2/streaming{self.pipe}:bulk-channel-status",
            json={"channel_names": [self.name]}, headers=self.server.scoped(),
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["channel_statuses"].get(self.name)

    def committed(self) -> str | None:
        return self.status()["last_committed_offset_token"]

    def wait(self, token: str, seconds: float = 10) -> dict:
        until = time.monotonic() + seconds
        while (status := self.status())["last_committed_offset_token"] != token:
            assert time.monotonic() < until, status
            time.sleep(0.01)
        return status


class Server:
    """A running server."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments = folder, arguments
        self.http = requests.Session()
        self.http.trust_env = False
        self._token = ""
        self.start()

    def start(self) -> None:
        port_file = self.folder / "ports"
        port_file.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(HOME)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_snowflake", "--port-file", str(port_file), "--parent-pid", str(os.getpid()), *self.arguments],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        first = self.process.stdout.readline()
        assert first.startswith("listening http://127.0.0.1:"), first
        self.url = first.split()[1]
        self.ports = [int(port) for port in port_file.read_text().split()]
        self._token = ""
        assert self.http.get(self.url + "/_local/health").status_code == 200

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(5)

    def scoped(self) -> dict[str, str]:
        if not self._token:
            answer = self.http.post(
                self.url + "/oauth/token", headers={"Authorization": f"Bearer {KEYS.jwt()}"},
                data={"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "scope": "127.0.0.1"},
            )
            assert answer.status_code == 200, answer.text
            self._token = answer.text
        return {"Authorization": f"Bearer {self._token}", "X-Snowflake-Authorization-Token-Type": "OAUTH"}

    def jwt_headers(self, token: str | None = None) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token or KEYS.jwt()}", "X-Snowflake-Authorization-Token-Type": "KEYPAIR_JWT"
        }

    def post_sql(self, statement: str, count: int | None = None, query: str = "", **body: object) -> requests.Response:
        body = {"statement": statement, "database": "DB", "schema": "S", **body}
        if count is not None:
            body["parameters"] = {"MULTI_STATEMENT_COUNT": str(count)}
        return self.http.post(f"{self.url}/api/v2/statements{query}", json=body, headers=self.jwt_headers())

    def sql(self, statement: str, count: int | None = None, **body: object) -> list[list]:
        answer = self.post_sql(statement, count, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def faults(self, **change: object) -> dict:
        answer = self.http.post(self.url + "/_local/faults", json=change)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fresh(self) -> None:
        """Empties the server, and makes DB.S."""
        assert self.http.post(self.url + "/_local/reset").status_code == 200
        self.sql("CREATE DATABASE DB; CREATE SCHEMA DB.S", count=0)

    def channel(self, table: str, name: str = "c1", **place: str) -> Channel:
        return Channel(self, table, name, **place)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shared")
    server = Server(folder, "--tls-port", "0", "--ca-file", str(folder / "ca.pem"))
    yield server
    server.kill()


@pytest.fixture
def server(shared: Server) -> Server:
    shared.fresh()
    return shared


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    running: list[Server] = []

    def begin(*arguments: str) -> Server:
        running.append(Server(tmp_path, *arguments))
        return running[-1]

    yield begin
    for one in running:
        one.kill()
