"""An OpenID provider, as a process of its own: `python -m tests.support.oidc_provider PORT`, or `provider`.

Discovery, keys, code flow with PKCE. Everybody who comes is logged in at once, as the last `PUT /next` says: a JSON
object with

    claims          added to those of the token; null takes one away
    key             `none`: no signature; `hmac`: signed with the public key's bytes; `new`: by a key that is new in the
                    key set; `changed`, `curve`: by one that has the id of the old one there, of the same type or
                    another; `stranger`: by one that is not in it
    issuer          of the redirect
    metadata        added to what it says of itself
    others          keys that come first in the key set
    jwks            a status and an object: the answer in place of the key set

What it was asked is at `GET /asked`. It takes a code once, with the right verifier, client and redirect address.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, RSAKey

CLIENT, SECRET = "urn:crochet", "a secret + 100 % of: the client"
ROOT = Path(__file__).parents[2]


class _Provider:
    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys: list[RSAKey | ECKey] = [self._new_key()]
        self.next: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[list[Any]] = []

    def _new_key(self) -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def metadata(self) -> dict[str, Any]:
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        own = {"issuer": self.issuer, **{name: f"{self.issuer}/{name}" for name in names}}
        return {**own, **self.next.get("metadata", {})}

    def jwks(self) -> tuple[int, dict[str, Any]]:
        keys = [key.as_dict(private=False) for key in self.keys]
        status, answer = self.next.get("jwks", (200, {"keys": [*self.next.get("others", []), *keys]}))
        return status, answer

    def authorize(self, given: dict[str, str]) -> str:
        assert given["response_type"] == "code"
        assert given["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = given
        issuer = self.next.get("issuer", self.issuer)
        return f"{given['redirect_uri']}?{urlencode({'code': code, 'state': given['state'], 'iss': issuer})}"

    def token(self, form: dict[str, str], login: str) -> tuple[int, dict[str, Any]]:
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        given = base64.b64decode(login.removeprefix("Basic ")).decode().split(":")
        if [unquote_plus(part) for part in given] != [CLIENT, SECRET]:
            return 401, {"error": "invalid_client"}
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.id_token(asked.get("nonce"))}

    def id_token(self, nonce: str | None) -> str:
        now = int(time.time())
        own = {"iss": self.issuer, "aud": CLIENT, "sub": "ada", "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {**own, "email": "ada@example.org", "roles": ["reader"], **self.next.get("claims", {})}
        claims = {name: value for name, value in claims.items() if value is not None}
        how, key = self.next.get("key"), self.keys[-1]
        if how in ("none", "hmac"):
            head = {"alg": "none" if how == "none" else "HS256", "kid": key.kid}
            signed = b".".join(_packed(json.dumps(part).encode()) for part in (head, claims))
            mac = b"" if how == "none" else hmac.digest(key.as_pem(private=False), signed, "sha256")
            return (signed + b"." + _packed(mac)).decode()
        if how in ("changed", "curve"):
            named: KeyParameters = {"kid": str(key.kid), "use": "sig"}
            key = RSAKey.generate_key(2048, named) if how == "changed" else ECKey.generate_key("P-256", named)
            self.keys[-1] = key
        if how in ("new", "stranger"):
            key = self._new_key()
            self.keys += [key] if how == "new" else []
        return jwt.encode(
            {"alg": "ES256" if isinstance(key, ECKey) else "RS256", "kid": key.kid}, claims, key, encoder_cls=_Ascii
        )


class _Ascii(json.JSONEncoder):
    """Writes what is no text, too: half a pair of characters, escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": True})


def _packed(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


class _Handler(BaseHTTPRequestHandler):
    provider: _Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/authorization_endpoint":
            self.provider.asked.append(["authorize", given])
            self.send_response(302)
            self.send_header("Location", self.provider.authorize(given))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        answers: dict[str, Callable[[], tuple[int, dict[str, Any]]]] = {
            "/.well-known/openid-configuration": lambda: (200, self.provider.metadata()),
            "/jwks_uri": self.provider.jwks,
            "/asked": lambda: (200, {"asked": self.provider.asked}),
            "/id_token": lambda: (200, {"id_token": self.provider.id_token(None)}),
        }
        self.provider.asked.append([parts.path])
        self._answer(*answers[parts.path]())

    def do_POST(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self._body().decode()).items()}
        self._answer(*self.provider.token(form, self.headers.get("Authorization", "")))

    def do_PUT(self) -> None:
        self.provider.next = json.loads(self._body())
        self._answer(200, {})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


class Running:
    """The provider, from outside."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    def next(self, **what: Any) -> None:
        httpx.put(f"{self.issuer}/next", content=json.dumps(what)).raise_for_status()  # also half a pair of characters

    def id_token(self) -> str:
        return str(httpx.get(f"{self.issuer}/id_token").json()["id_token"])

    def visited(self, address: str) -> str:
        """Where it sends a browser that follows this address."""
        return httpx.get(address).headers["Location"]

    def asked(self) -> list[list[Any]]:
        found: list[list[Any]] = httpx.get(f"{self.issuer}/asked").json()["asked"]
        return found


@contextlib.contextmanager
def provider(port: int) -> Iterator[Running]:
    """A provider that runs. The caller ends it."""
    command = [sys.executable, "-m", "tests.support.oidc_provider", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Running(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def main() -> None:
    port = int(sys.argv[1])
    _Handler.provider = _Provider(port)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
