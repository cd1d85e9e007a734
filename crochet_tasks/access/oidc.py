"""Log-in by OpenID Connect: discovery, the code flow with PKCE, and what an ID token has to be.

The provider is found by CROCHET_OIDC_ISSUER. What it says of itself and its keys are cached; for a signature that none
of them made it is asked again, once a minute at the most, whether it answers or not.
"""

from __future__ import annotations

import contextlib
import hmac
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote_plus, urlsplit

import httpx
from authlib.common.security import generate_token
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyCurveError, InvalidKeyIdError, JoseError, KeyParameterError
from joserfc.jwk import Key, KeySet

from crochet_tasks.errors import LogInRefused, OidcOff, OidcUnavailable
from crochet_tasks.net import is_loopback
from crochet_tasks.settings import Settings

T = TypeVar("T")

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""with a public key only: a secret that two sides share, or none, proves nothing"""
SCOPE = "openid profile email"
CALL_SECONDS = 5.0
ANSWER_BYTES = 1_000_000
METADATA_SECONDS = 3600.0
KEYS_SECONDS = 60.0
"""between two looks for a key that is not known"""
FAILED_SECONDS = 10.0
"""for which a provider that failed is not asked again for what is not known"""
WAIT_SECONDS = 4 * CALL_SECONDS
"""for which a thread waits for the answer to another one"""
LEEWAY_SECONDS = 60
FRESH_SECONDS = 300
"""how old an ID token may be that a program exchanges: it counts once, and db.access.ONCE_SECONDS is longer"""


class Pending(NamedTuple):
    """A log-in that has begun; only the browser that began it has these."""

    state: str
    nonce: str
    verifier: str


class _Cached(Generic[T]):
    """What the provider answered. One thread asks at a time; others go on with what is known, or wait if it is old."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._known: tuple[float, T] | None = None
        self._asked = -math.inf
        self._failed: tuple[float, str] | None = None

    def get(self, *, renew: bool = False) -> T:
        """What is known, or with `renew` something newer. Raises OidcUnavailable, also for what failed just now."""
        found = self._fresh()
        if found is not None and not renew:
            return found[0]
        if not self._asking.acquire(timeout=0.0 if found is not None else WAIT_SECONDS):
            if found is not None:
                return found[0]
            raise OidcUnavailable(reason=f"it did not answer within {WAIT_SECONDS:.0f} s")
        try:
            return self._newer(renew=renew)
        finally:
            self._asking.release()

    def _fresh(self) -> tuple[T] | None:
        known = self._known
        return None if known is None or time.monotonic() - known[0] >= METADATA_SECONDS else (known[1],)

    def _newer(self, *, renew: bool) -> T:
        found, now = self._fresh(), time.monotonic()  # another thread may have asked meanwhile
        if found is not None and not (renew and now - self._asked >= KEYS_SECONDS):
            return found[0]
        if found is None and self._failed is not None and now - self._failed[0] < FAILED_SECONDS:
            raise OidcUnavailable(reason=self._failed[1])
        self._asked = now
        try:
            self._known = (now, self._ask())
        except OidcUnavailable as error:
            self._failed = (time.monotonic(), str(error.context["reason"]))
            raise
        self._failed = None
        return self._known[1]


class Provider:
    """The provider of the settings. Thread-safe; made once per process."""

    def __init__(self, settings: Settings) -> None:
        """Raises OidcOff where none is set."""
        if settings.oidc_issuer is None or settings.oidc_client_id is None:
            raise OidcOff
        self.issuer, self._client = settings.oidc_issuer, settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._metadata = _Cached(self._ask_metadata)
        self._keys = _Cached(lambda: _key_set(self._call("GET", self._endpoint("jwks_uri"))))

    def begin(self, redirect_uri: str) -> tuple[str, Pending]:
        """The address at the provider to send a browser to, and what `finish` needs. Raises OidcUnavailable."""
        pending = Pending(generate_token(43), generate_token(43), generate_token(64))
        parameters = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": create_s256_code_challenge(pending.verifier),
            "code_challenge_method": "S256",
        }
        return str(add_params_to_uri(self._endpoint("authorization_endpoint"), [*parameters.items()])), pending

    def finish(self, pending: Pending, given: dict[str, str], redirect_uri: str) -> dict[str, Any]:
        """The claims of who logged in; `given` are the parameters of the redirect back.

        Raises LogInRefused and OidcUnavailable.
        """
        if not hmac.compare_digest(pending.state.encode(), given.get("state", "").encode()):
            raise LogInRefused(reason="it was begun in another browser, or long ago")
        if given.get("iss", self.issuer) != self.issuer:  # RFC 9207
            raise LogInRefused(reason="the answer is that of another provider")
        if "code" not in given:
            raise LogInRefused(reason=f"the provider says {given.get('error', 'nothing')[:50]!r}")
        form = {
            "grant_type": "authorization_code",
            "code": given["code"],
            "redirect_uri": redirect_uri,
            "code_verifier": pending.verifier,
            "client_id": self._client,
        }
        parts = None if self._secret is None else (self._client, self._secret.get_secret_value())
        login = parts and (quote_plus(parts[0]), quote_plus(parts[1]))  # RFC 6749, 2.3.1
        answer = self._call("POST", self._endpoint("token_endpoint"), data=form, auth=login)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LogInRefused(reason="the provider did not take the code: it may have been used before")
        return self.claims(token, pending.nonce)

    def claims(self, token: str, nonce: str | None) -> dict[str, Any]:
        """The claims of an ID token that this provider made for us, now. Raises LogInRefused and OidcUnavailable.

        Without a nonce it must be fresh, and the caller has to see to it that it counts once.
        """
        options = {"iss": {"essential": True, "value": self.issuer}, "aud": {"essential": True, "value": self._client}}
        try:
            decoded = self._decoded(token)
            found = CodeIDToken(decoded.claims, decoded.header, options, {"nonce": nonce, "client_id": self._client})
            found.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError) as error:
            raise LogInRefused(reason=f"the ID token is not good: {getattr(error, 'error', 'malformed')}") from None
        if found.get("azp", self._client) != self._client:
            raise LogInRefused(reason="the ID token was given to another client")
        if nonce is None and time.time() - float(found["iat"]) > FRESH_SECONDS:
            raise LogInRefused(reason=f"the ID token is older than {FRESH_SECONDS} s")
        return dict(found)

    def _decoded(self, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, self._keys.get(), algorithms=ALGORITHMS)
        except _OTHER_KEY:
            return jwt.decode(token, self._keys.get(renew=True), algorithms=ALGORITHMS)

    def _ask_metadata(self) -> dict[str, Any]:
        found = self._call("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise OidcUnavailable(reason="it calls itself by another name than CROCHET_OIDC_ISSUER")
        return found

    def _endpoint(self, name: str) -> str:
        address = self._metadata.get().get(name)
        if not isinstance(address, str) or not is_safe(address):
            raise OidcUnavailable(reason=f"it has no {name} by https")
        return address

    def _call(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """The JSON object that it answers, also where it refuses; no redirect is followed."""
        try:
            with httpx.stream(
                method, url, timeout=CALL_SECONDS, headers={"Accept": "application/json"}, **more
            ) as answer:
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > ANSWER_BYTES:
                        raise OidcUnavailable(reason="its answer is too large")
            body = httpx.Response(answer.status_code, content=content).json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise OidcUnavailable(reason=f"{type(error).__name__} at {urlsplit(url).path}") from None
        if answer.status_code >= _FAULT or not isinstance(body, dict):
            raise OidcUnavailable(reason=f"it answers {answer.status_code} at {urlsplit(url).path}")
        return body


_FAULT = 500
_OTHER_KEY = (BadSignatureError, InvalidKeyCurveError, InvalidKeyIdError, KeyParameterError, ValueError)
"""what a signature of a new key of the provider looks like, also of one that has the id of an old one"""


def _key_set(answer: dict[str, Any]) -> KeySet:
    """The keys of a JWK set; those that we cannot read are passed over (RFC 7517, 5). Raises OidcUnavailable."""
    listed = answer.get("keys")
    found: list[Key] = []
    for each in listed if isinstance(listed, list) else ():
        with contextlib.suppress(JoseError, KeyError, ValueError, TypeError):
            found += KeySet.import_key_set({"keys": [each]}).keys
    if not found:
        raise OidcUnavailable(reason="its keys cannot be read")
    return KeySet(found)


def is_safe(address: str) -> bool:
    """By TLS, or on this machine."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that close nothing
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
