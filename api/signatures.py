"""Signatures of administrators' requests (CROCHET_SIGNED_ADMIN): each is good once, for a few minutes."""

from __future__ import annotations

import hmac
import time

from flask import request

from api import process, security_log
from crochet_tasks.access import signing
from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER
from crochet_tasks.db import access
from crochet_tasks.errors import SignatureRefused

SIGNED_SECONDS = 300.0
"""by how much the date of a signed request may differ from our clock"""


def check(secret_hash: bytes) -> None:
    """Raise SignatureRefused unless the request is signed with the key of this hash, now, and for the first time."""
    date, sent = request.headers.get(DATE_HEADER, ""), request.headers.get(SIGNATURE_HEADER, "")
    if not date or not sent:
        raise SignatureRefused(reason=f"{DATE_HEADER} and {SIGNATURE_HEADER} are needed here")
    try:
        timely = abs(time.time() - float(date)) <= SIGNED_SECONDS  # which "nan" is not
    except ValueError:
        timely = False
    if not timely or not date.isascii():
        raise SignatureRefused(reason=f"{DATE_HEADER} is more than {SIGNED_SECONDS:.0f} s from now, or no Unix time")
    expected = signing.signature(secret_hash, request.method, _target(), date, request.get_data())
    if not hmac.compare_digest(expected.encode(), sent.encode(errors="replace")):
        raise SignatureRefused(reason="it is not that of this request")
    with process.current().database.transaction() as connection:
        new = access.once(connection, bytes.fromhex(expected))
    if not new:
        _record_replay()
        raise SignatureRefused(reason="this very request was made before")


def _record_replay() -> None:
    with process.current().database.transaction() as connection:
        access.add_log_entry(connection, security_log.entry("signature.replayed", {"path": security_log.path()}))


def _target() -> str:
    """Path and query as they were sent, before anything was decoded."""
    raw = request.environ.get("RAW_URI") or request.environ.get("REQUEST_URI")
    if isinstance(raw, str) and raw.startswith("/"):
        return raw
    query = request.query_string.decode("latin-1")
    return f"{request.path}?{query}" if query else request.path
