"""What a key is made of, and how requests are signed with it: what server and client have in common."""

from __future__ import annotations

import hashlib
import hmac
import re

DATE_HEADER, SIGNATURE_HEADER = "X-Crochet-Date", "X-Crochet-Signature"

PREFIX = re.compile("[a-z2-7]{10}")
_KEY = re.compile(rf"crk_({PREFIX.pattern})_([A-Za-z0-9_-]{{43}})")


def split(key: str) -> tuple[str, bytes] | None:
    """Prefix and hash of what may be a key; None where it is none."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], hashed(match[2]))


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def signature(hashed: bytes, method: str, target: str, date: str, body: bytes) -> str:
    """The signature of a request by a key, of whose secret this is the SHA-256.

    `target` is path and query as sent; `date` is that of X-Crochet-Date, Unix time in seconds, perhaps with a fraction.
    """
    # The server has no more of the secret than this hash. It is no secret from somebody who reads the database, but
    # such a one lacks the key itself, which each request has to bring as well.
    told = "\n".join((method, target, date, hashlib.sha256(body).hexdigest()))
    return hmac.new(hashed, told.encode(), hashlib.sha256).hexdigest()
