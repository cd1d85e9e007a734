"""The form of keys, and how requests are signed with them: shared by server and client."""

from __future__ import annotations

import hashlib
import hmac
import re

DATE_HEADER, SIGNATURE_HEADER = "X-Crochet-Date", "X-Crochet-Signature"

PREFIX = re.compile("[a-z2-7]{10}")
_KEY = re.compile(rf"crk_({PREFIX.pattern})_([A-Za-z0-9_-]{{43}})")


def split(key: str) -> tuple[str, bytes] | None:
    """Prefix and hash of a key; None for what has not the form of one."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], hashed(match[2]))


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def signature(hashed: bytes, method: str, target: str, date: str, body: bytes) -> str:
    """The signature of a request by a key, of whose secret this is the SHA-256.

    `target` is path and query as sent; `date` is that of X-Crochet-Date, Unix time in seconds, perhaps with a fraction.
    """
    # The server stores no more of the secret than this hash. Reading the database is not enough to send requests: each
    # has to contain the key itself as well.
    signed = "\n".join((method, target, date, hashlib.sha256(body).hexdigest()))
    return hmac.new(hashed, signed.encode(), hashlib.sha256).hexdigest()
