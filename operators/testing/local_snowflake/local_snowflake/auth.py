"""Who may ask: key-pair JWTs, the scoped tokens made from them, and other bearer tokens.

Guarantees: a JWT must be RS256 with `iss` ACCOUNT.USER.SHA256:…, `sub` ACCOUNT.USER and a life of at
most an hour; with public keys given, its signature and its fingerprint are verified too. A token made
by another run of the server is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

_LEEWAY_S = 60
_MAX_LIFE_S = 3600


class Denied(Exception):
    """Not authorised; the message says why."""


@dataclass(frozen=True)
class Identity:
    """The account and user of a token."""

    account: str
    user: str


def _part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Auth:
    """Verifies tokens, and makes the scoped ones."""

    def __init__(self, public_keys: list[bytes]) -> None:
        self._secret = secrets.token_bytes(32)
        self._keys = {}
        for pem in public_keys:
            key = serialization.load_pem_public_key(pem)
            der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            self._keys["SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()] = key

    def key_pair(self, token: str, milliseconds: bool = False) -> Identity:
        """The identity of a key-pair JWT; `milliseconds` admits the official SDK's times."""
        head, claims, signed, signature = self._split(token)
        if head.get("alg") != "RS256":
            raise Denied("JWT is not signed with RS256")
        issuer, subject = str(claims.get("iss", "")), str(claims.get("sub", ""))
        name, _, fingerprint = issuer.partition(".SHA256:")
        if not fingerprint or name != subject or subject.count(".") != 1 or subject != subject.upper() and not milliseconds:
            raise Denied("JWT issuer or subject is malformed")
        self._check_times(claims, milliseconds)
        if self._keys:
            key = self._keys.get("SHA256:" + fingerprint)
            if key is None:
                raise Denied("JWT fingerprint matches no public key of the user")
            try:
                key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                raise Denied("JWT signature does not verify") from None
        account, user = subject.split(".")
        return Identity(account, user)

    def issue(self, identity: Identity, seconds: int) -> str:
        """A scoped token, different each time."""
        now = int(time.time())
        claims = {"iss": "local-snowflake", "sub": f"{identity.account}.{identity.user}", "iat": now, "exp": now + seconds, "jti": secrets.token_hex(8)}
        signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{signed}.{base64.urlsafe_b64encode(self._sign(signed)).rstrip(b'=').decode()}"

    def scoped(self, token: str) -> Identity:
        """The identity of a scoped token of this run."""
        _, claims, signed, signature = self._split(token)
        if not hmac.compare_digest(self._sign(signed.decode()), signature):
            raise Denied("token was not made by this server")
        if claims.get("exp", 0) < time.time():
            raise Denied("token has expired")
        account, _, user = str(claims["sub"]).partition(".")
        return Identity(account, user)

    def bearer(self, headers: dict[str, str], default_type: str) -> Identity:
        """The identity behind the headers of a request."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Denied("no bearer token in the request")
        kind = headers.get("x-snowflake-authorization-token-type", default_type).upper()
        if kind == "KEYPAIR_JWT":
            try:
                return self.scoped(token)  # clients often name a scoped token so
            except Denied:
                return self.key_pair(token)
        if kind == "PROGRAMMATIC_ACCESS_TOKEN":
            return Identity("LOCAL", "LOCAL_USER")
        return self.scoped(token)

    def _sign(self, text: str) -> bytes:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).digest()

    @staticmethod
    def _split(token: str) -> tuple[dict, dict, bytes, bytes]:
        try:
            head, claims, signature = token.split(".")
            return json.loads(_part(head)), json.loads(_part(claims)), f"{head}.{claims}".encode(), _part(signature)
        except (ValueError, UnicodeDecodeError):
            raise Denied("token is not a JWT") from None

    @staticmethod
    def _check_times(claims: dict, milliseconds: bool) -> None:
        issued, expires, now = claims.get("iat"), claims.get("exp"), time.time()
        if not isinstance(issued, (int, float)) or not isinstance(expires, (int, float)):
            raise Denied("JWT has no iat or exp")
        if milliseconds and expires > 1e11:
            issued, expires = issued / 1000, expires / 1000
        if expires <= now:
            raise Denied("JWT has expired")
        if expires - issued > _MAX_LIFE_S + _LEEWAY_S or expires - now > _MAX_LIFE_S + _LEEWAY_S:
            raise Denied("JWT lives longer than an hour")
        if issued > now + _LEEWAY_S:
            raise Denied("JWT is from the future")
