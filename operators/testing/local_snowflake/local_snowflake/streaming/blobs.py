"""The stage for large flushes: the official SDK puts encrypted files here, then names their parts.

```text
 PUT /local-snowflake-stage/<path>   aws-chunked, one file
 POST …/filebuffer                   [{file_path, offset, length, iv, tokens}] ──> decrypt ──> zstd ──> NDJSON
```
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import OrderedDict
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BUCKET = "local-snowflake-stage"
_KEPT_BYTES = 1 << 30


def unchunk(body: bytes) -> bytes:
    """The payload of an aws-chunked body."""
    parts, position = [], 0
    while (end := body.find(b"\r\n", position)) >= 0:
        size = int(body[position:end].split(b";")[0] or b"0", 16)
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        position = end + 2 + size + 2
    return b"".join(parts)


class Stage:
    """The files, newest kept; and the key that clients encrypt with."""

    def __init__(self) -> None:
        self.key = secrets.token_bytes(32)
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, path: str, body: bytes) -> str:
        """Stores a file; its ETag."""
        path = path.removeprefix(f"{BUCKET}/")
        with self._lock:
            self._bytes += len(body) - len(self._files.pop(path, b""))
            self._files[path] = body
            while self._bytes > _KEPT_BYTES and len(self._files) > 1:
                self._bytes -= len(self._files.popitem(last=False)[1])
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    def fragment(self, entry: dict[str, Any]) -> bytes | None:
        """The decrypted part of a file that a filebuffer entry names; still compressed."""
        wanted = str(entry.get("file_path", "")).lstrip("/").removeprefix(f"{BUCKET}/")
        with self._lock:
            body = self._files.get(wanted)
        if body is None:
            return None
        start = int(entry.get("fragment_start_byte_offset") or 0)
        length = int(entry.get("fragment_length_bytes") or len(body) - start)
        initial = base64.b64decode(entry["iv_base64"])
        cipher = Cipher(algorithms.AES(self.key), modes.CTR(initial)).decryptor()
        return cipher.update(body[start : start + length]) + cipher.finalize()
