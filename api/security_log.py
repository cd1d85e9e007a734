"""What is recorded of requests in the security log, and how refusals are throttled so that they cannot fill it."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from typing import Any

from flask import current_app, g, request

from api import process
from crochet_tasks.db import access
from crochet_tasks.db.access import Entry
from crochet_tasks.errors import CrochetError
from crochet_tasks.telemetry.masking import masked

log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0
"""for which the same refusal of the same client is only counted"""
MOST_SHOWN = 200
"""characters of a path or a reason"""
MOST_CLIENTS = 4096
"""for which the time of the last record is remembered"""


class Throttle:
    """Decides which events are recorded: one of each kind in `quiet` seconds; others are counted."""

    def __init__(self, quiet: float = QUIET_SECONDS, most: int = MOST_CLIENTS) -> None:
        self._quiet, self._most = quiet, most
        self._recorded: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def due(self, kind: tuple[object, ...]) -> int | None:
        """How many were left out since the last recorded one; None where this one is left out, too."""
        now = time.monotonic()
        with self._lock:
            at, left_out = self._recorded.pop(kind, (-self._quiet, 0))
            silent = now - at < self._quiet
            self._recorded[kind] = (at, left_out + 1) if silent else (now, 0)
            if len(self._recorded) > self._most:
                self._recorded.popitem(last=False)
            return None if silent else left_out


def record_refusal(error: CrochetError, claimed: str | None) -> None:
    """Record a refusal. The request is refused whether it can be recorded or not.

    Unknown callers are distinguished by network, not by the prefix that they `claimed`, which can be made up.
    """
    caller = g.get("caller")
    key = None if caller is None else caller.key
    log.warning("refused", extra={"code": error.code, "key": key or claimed, "reason": str(error)})
    details: dict[str, Any] = {"method": request.method, "path": path(), "reason": _shortened(str(error))}
    if caller is None and claimed is not None:
        details["claimed"] = claimed
    entry = throttled(f"refused.{error.code}", network() if key is None else key, details)
    if entry is None:
        return
    try:
        with process.current().database.transaction() as connection:
            access.add_log_entry(connection, entry)
    except CrochetError as away:
        about = {"what": entry.what, "key": key, "code": away.code, "error": str(away)}
        log.error("security_log_not_written", extra=about)  # noqa: TRY400 - it is ours


def throttled(what: str, who: str, details: dict[str, Any]) -> Entry | None:
    """As `entry`, with how many like it were left out before; None where this one is left out, too."""
    throttle: Throttle = current_app.extensions["crochet.refusals"]
    left_out = throttle.due((what, who))
    if left_out is None:
        return None
    return entry(what, {**details, **({"more": left_out} if left_out else {})})


def entry(what: str, details: dict[str, Any] | None = None) -> Entry:
    """A line of the security log about this request, to be written in the transaction of its change."""
    caller = g.get("caller")
    tenant, key = (None, None) if caller is None else (caller.tenant, caller.key)
    return Entry(what, tenant, key, request.remote_addr, g.get("request_id"), _clean(details or {}))


def path() -> str:
    """That of the request, as details show it."""
    return _shortened(request.path)


def _shortened(words: str) -> str:
    """Masked first: of a key that is cut off the rest would not look like one."""
    return str(masked(words))[:MOST_SHOWN]


def _clean(details: dict[str, Any]) -> dict[str, Any]:
    """Without the secrets that names may be: paths take a whole key where its prefix belongs. JSON in Postgres cannot
    contain NUL.
    """
    found = {name: masked(value) for name, value in details.items()}
    return {name: value.replace("\0", "?") if isinstance(value, str) else value for name, value in found.items()}


# ── addresses ───────────────────────────────────────────────────────────────────────────────────

OF_ONE_HOST = 64
"""bits of an IPv6 address that identify a client, which may use all addresses of that network"""


def network() -> str:
    """The client's address; of IPv6 its /64."""
    return network_of(request.remote_addr or "")


def network_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # what a proxy sent, or a socket
        return address[:100].replace("\0", "?")
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), OF_ONE_HOST), strict=False))
