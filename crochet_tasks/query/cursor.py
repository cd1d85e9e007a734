"""Cursors: the position of the next page, signed (HMAC) so that clients cannot make them up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

from crochet_tasks.errors import InvalidCursor

SEAL_BYTES = 16
MOST_CHARACTERS = 8192


def sealed(secret: bytes, question: list[object], position: bytes) -> str:
    """A signed cursor for this question from that position on; safe in a URL."""
    return base64.urlsafe_b64encode(position + _seal(secret, question, position)).decode().rstrip("=")


def opened(secret: bytes, question: list[object], cursor: str) -> bytes:
    """The position in a cursor. Raises InvalidCursor if it was made for another question or deployment."""
    if not cursor.isascii() or len(cursor) > MOST_CHARACTERS:
        raise InvalidCursor
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidCursor from None
    position, seal = raw[:-SEAL_BYTES], raw[-SEAL_BYTES:]
    if not hmac.compare_digest(seal, _seal(secret, question, position)) or sealed(secret, question, position) != cursor:
        raise InvalidCursor
    return position


def _seal(secret: bytes, question: list[object], position: bytes) -> bytes:
    encoded = json.dumps(question).encode()
    message = b"crochet cursor" + len(encoded).to_bytes(4, "big") + encoded + position
    return hmac.digest(secret, message, hashlib.sha256)[:SEAL_BYTES]
