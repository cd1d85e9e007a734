"""Authentication and authorization: API keys, access tokens, scopes, and signatures of administrators' requests.

The caller is identified before anything else of a request is read (`identify`), and refused before its body is
(`admit`): so a caller without permission learns nothing about what the route takes.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Response, current_app, g, request
from flask_openapi import OpenAPI

from api import problems, process, security_log, signatures
from api.recently_valid import RecentlyValid
from crochet_tasks.access import keys, operators, signing, tenancy, tokens
from crochet_tasks.access.keys import SCOPES, Scope, Tier
from crochet_tasks.db import Connection, access, corpora
from crochet_tasks.db.access import KeyRow
from crochet_tasks.db.corpora import DEFAULT_TENANT
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import (
    AuthOff,
    CorporaOnly,
    CrochetError,
    Forbidden,
    ForeignPage,
    KeyNeeded,
    LogInRefused,
    OperatorNeeded,
    SignatureRefused,
    TenantSuspended,
    Unauthorized,
)
from crochet_tasks.net import is_loopback
from crochet_tasks.schemas.acting import acting
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation as origin
from crochet_tasks.telemetry import metrics

P = ParamSpec("P")
R = TypeVar("R")


class Caller(NamedTuple):
    """Who made the request. Corpora of other tenants do not exist for them."""

    tenant: int
    scopes: frozenset[Scope]
    key: str
    """prefix of the key, for logs"""
    tier: Tier = "standard"
    hash: bytes = b""
    """SHA-256 of the key's secret: signatures are made with it"""
    session: str | None = None
    """of an access token"""
    corpora: frozenset[int] | None = None
    """the only ones that exist for this caller; None: all of the tenant"""
    rate: int | None = None
    """the tenant's own limit of requests in a minute"""


ANONYMOUS = Caller(DEFAULT_TENANT, frozenset(SCOPES), "none", "high")
"""the caller where CROCHET_API_AUTH is off"""


def caller() -> Caller:
    """The caller of this request; only within a route that `requires` a scope."""
    found = g.caller
    assert isinstance(found, Caller)
    return found


def reach() -> tuple[int, frozenset[int] | None]:
    """The tenant of the caller, and the only corpora of it that exist for them; None: all."""
    return caller().tenant, caller().corpora


def operates() -> bool:
    """Whether the caller is an operator (docs/adr/0045): then what belongs to no tenant is theirs, too."""
    found: Caller | None = g.get("caller")
    if found is None or "admin" not in found.scopes or found.corpora is not None:
        return False
    if "operates" not in g:
        with process.current().database.snapshot() as connection:
            g.operates = operators.is_operator(connection, process.settings(), found.tenant)
    return bool(g.operates)


def asked_by_operator() -> bool:
    """Whether a request to an open route has an operator's key, and a signature where it must. Raises no refusal."""
    try:
        g.caller = _caller()
        if not operates():
            return False
        if g.caller is ANONYMOUS:
            _check_page(process.settings())
        elif process.settings().signed_admin:
            signatures.check(g.caller.hash)
    except CrochetError:
        return False
    return True


def check_operator() -> None:
    if not operates():
        raise OperatorNeeded


def highest_priority() -> int:
    """The highest priority that the caller gives texts and corpora."""
    return tenancy.highest_priority(caller().scopes)


def check_priority(wanted: int) -> None:
    """Raise PriorityTooHigh for a priority that the caller does not give."""
    tenancy.check_priority(wanted, highest_priority())


def tenants() -> int | None:
    """Whose keys and work the caller may change: their tenant's; of operators None, which is everybody's."""
    return None if operates() else caller().tenant


def requires(
    scope: Scope, *, filters: bool = False, operators: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a route answer only callers with that scope; each scope includes those before it in SCOPES.

    A key that is limited to corpora may use what names one of them in its path, and what `filters` its answer by
    `reach`; nothing else. What is for `operators` is for those of the deployment only.

    Put it directly above the function, below the blueprint's decorator. It marks the route; `admit` refuses, before
    the route's parameters and body are read.
    """

    def marked(route: Callable[P, R]) -> Callable[P, R]:
        setattr(route, _SCOPE, scope)
        setattr(route, _FILTERS, filters)
        setattr(route, _OPERATORS, operators)
        return route

    return marked


_SCOPE, _FILTERS, _OPERATORS = "_crochet_scope", "_crochet_filters", "_crochet_operators"
SIGNED: Final = frozenset[Scope](("operate", "admin"))
"""what must be signed with CROCHET_SIGNED_ADMIN"""
PAGES = "crochet.pages"
"""extension: per blueprint of pages, what says who asks for them. They go by a cookie, which counts nowhere else."""


def scope_of(view: Callable[..., Any] | None) -> Scope | None:
    """The scope that a view `requires`; None for a public one."""
    return getattr(view, _SCOPE, None)


def check(settings: Settings) -> None:
    """Raise AuthOff where authentication is off and other machines could send requests."""
    alone = settings.environment == "development" and is_loopback(settings.api_host)
    if not settings.api_auth and not alone:
        raise AuthOff


# ── the request ─────────────────────────────────────────────────────────────────────────────────


def install(app: OpenAPI) -> None:
    check(app.extensions["crochet.settings"])
    app.extensions["crochet.refusals"] = security_log.Throttle()
    app.extensions["crochet.recently_valid"] = RecentlyValid()
    for kind in (
        Unauthorized,
        Forbidden,
        CorporaOnly,
        ForeignPage,
        KeyNeeded,
        OperatorNeeded,
        LogInRefused,
        SignatureRefused,
        TenantSuspended,
    ):
        app.register_error_handler(kind, refused)
    for event in metrics.SECURITY_EVENTS:
        metrics.SECURITY.add(0, event=event)  # what begins at 1 has not grown, for Prometheus
    app.before_request(identify)
    app.teardown_request(_forget)


def sample() -> None:
    """Decide by our own ratio whether the trace of an unknown caller is sampled: their `traceparent` is not trusted.

    This runs before the span of the request begins, so before keys are looked up: RecentlyValid decides who is unknown.
    The trace's id does not count, either, as the caller chooses it.
    """
    traceparent = request.environ.get("HTTP_TRACEPARENT")
    if traceparent is None or not process.settings().api_auth:
        return
    recent: RecentlyValid = current_app.extensions["crochet.recently_valid"]
    if not recent.has(_bearer() or ""):
        kept = random.random() < process.settings().trace_ratio  # noqa: S311 - nothing is kept secret by it
        request.environ["HTTP_TRACEPARENT"] = origin.decided(traceparent, kept=kept) or ""


def identify() -> None:
    """Identify the caller. A refusal is raised by `admit`, after the request was counted by the rate limits.

    What is neither a key nor a token that we signed takes no database query, a made-up key takes one.
    """
    g.caller = g.refusal = None
    if _needed() is None:
        return
    try:
        g.caller = _caller()
    except CrochetError as error:
        g.refusal = error
        return
    facts = {"key": g.caller.key, "address": request.remote_addr, "request": g.get("request_id")}
    via = "api" if request.path.startswith("/v1/") else "page"
    acting.set({"via": via, **{name: str(fact) for name, fact in facts.items() if fact is not None}})


def _forget(_: BaseException | None) -> None:
    """The thread goes on to another request."""
    acting.set(None)


def admit() -> None:
    """Raise Unauthorized, Forbidden, CorporaOnly, CorpusUnknown, ForeignPage or SignatureRefused unless the caller has
    permission.
    """
    scope = _needed()
    if scope is None:
        return
    found: Caller | None = g.caller
    if found is None:
        raise g.refusal
    if found is ANONYMOUS:
        _check_page(process.settings())
    if scope not in found.scopes:
        raise Forbidden(needed=scope)
    if found.corpora is not None:
        _check_corpus(found, found.corpora)
    if getattr(_view(), _OPERATORS, False):
        check_operator()
    if scope in SIGNED and process.settings().signed_admin:
        signatures.check(found.hash)


_CORPUS = re.compile(r"^(?:/v1)?/corpora/<(?:\w+:)?(\w+)>")
"""of the rule of a route that names a corpus: which of its parts does"""


def _check_corpus(found: Caller, only: frozenset[int]) -> None:
    """For a limited key: raise CorpusUnknown where the route names another corpus, CorporaOnly where it names none
    and does not filter.
    """
    rule = request.url_rule
    part = None if rule is None else _CORPUS.match(rule.rule)
    if part is not None:
        with process.current().database.snapshot() as connection:
            corpora.named(connection, (request.view_args or {})[part[1]], found.tenant, only=only)
    elif not getattr(_view(), _FILTERS, False):
        raise CorporaOnly


def _check_page(settings: Settings) -> None:
    """Raise ForeignPage where a browser asks for a page that is none of ours.

    Any program on this machine may send requests then, and so could each page that is open in a browser here: with its
    own Origin, or, where its name was made to point here (DNS rebinding), with a Host that is not this machine's.
    """
    try:
        host, origin = urlsplit(f"//{request.host}").hostname, request.headers.get("Origin")
        own = origin is None or urlsplit(origin).netloc == request.host
    except ValueError:  # brackets that close nothing
        raise ForeignPage(reason="its address cannot be read") from None
    if not is_loopback(host or ""):
        raise ForeignPage(reason=f"'{request.host[:100]}' is no name of this machine")
    if not own and origin not in (settings.api_origins or "").split(","):
        raise ForeignPage(reason=f"its origin is '{(origin or '')[:100]}'")


def refused(error: CrochetError) -> Response:
    """Record the refusal in the security log and return the answer."""
    parts = signing.split(_bearer() or "")
    security_log.record_refusal(error, None if parts is None else parts[0])
    return problems.problem(error)


def _needed() -> Scope | None:
    """The scope that this request needs. A preflight request (OPTIONS) never reaches a route."""
    return None if request.method == "OPTIONS" else scope_of(_view())


def _view() -> Callable[..., Any] | None:
    return current_app.view_functions.get(request.endpoint or "")


def _bearer() -> str | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def _caller() -> Caller:
    if not process.settings().api_auth:
        return ANONYMOUS
    pages: dict[str | None, Callable[[], Caller]] = current_app.extensions.get(PAGES, {})
    if request.blueprint in pages:
        return pages[request.blueprint]()
    credentials = _bearer()
    if not credentials:
        raise Unauthorized(reason="the request has no key")
    return of_credentials(credentials)


def of_credentials(credentials: str) -> Caller:
    """The caller with this key or access token; raises Unauthorized and TooBusy."""
    parts = signing.split(credentials)
    claims = None if parts else tokens.read(process.settings(), credentials)
    return _looked_up(
        credentials,
        lambda connection: _of_token(connection, claims) if claims else _of_key(connection, *(parts or ("", b""))),
    )


def of_session(claims: tokens.Claims) -> Caller:
    """The caller of a session that this server began: the claims come from something it has signed."""
    return _looked_up(f"{claims.key} {claims.session}", lambda connection: _of_token(connection, claims))


def _looked_up(credentials: str, look_up: Callable[[Connection], Caller]) -> Caller:
    recent: RecentlyValid = current_app.extensions["crochet.recently_valid"]
    try:
        with recent.turn(credentials), process.current().database.transaction() as connection:
            found = look_up(connection)
    except Unauthorized:
        recent.record(credentials, good=False)
        raise
    recent.record(credentials, good=True)
    return found


def is_still_admitted(database: Database, found: Caller) -> bool:
    """Whether the caller would be admitted now: for answers that take long."""
    if found is ANONYMOUS:
        return True
    with database.transaction() as connection:
        row = access.key(connection, found.key)
        session = None if found.session is None else access.session(connection, uuid.UUID(found.session))
    ended = found.session is not None and (session is None or not session.good)
    return row is not None and row.state == "good" and not row.suspended and not ended


def _of_key(connection: Connection, prefix: str, hashed: bytes) -> Caller:
    row = access.key(connection, prefix)
    if not keys.recognised(row, hashed) or row is None:
        raise Unauthorized(reason="there is no such key")
    return _of_row(connection, row, row.scopes)


def _of_token(connection: Connection, claims: tokens.Claims) -> Caller:
    session = access.session(connection, claims.session)
    row = access.key(connection, claims.key)
    if session is None or row is None or not session.good or session.key != row.prefix:
        raise Unauthorized(reason="the token's session has ended")
    return _of_row(connection, row, session.scopes, session=str(session.id))


def _of_row(connection: Connection, row: KeyRow, scopes: list[str], session: str | None = None) -> Caller:
    if row.state != "good":
        raise Unauthorized(reason=f"the key is {row.state}")
    if row.suspended:
        raise TenantSuspended
    tier: Tier = "high" if row.tier == "high" else "standard"
    only = None if row.corpora is None else frozenset(row.corpora)
    allowed = keys.included(scopes) & keys.included(row.scopes)
    found = Caller(row.tenant, allowed, row.prefix, tier, row.hash, session, only, row.rate)
    network = security_log.network()
    if network not in row.addresses and access.add_address(connection, row, network) and row.person is None:
        new = security_log.entry("key.new_address", {"network": network})
        access.add_log_entry(connection, new._replace(tenant=found.tenant, key=found.key))
    if row.stale and access.used(connection, row):
        access.add_log_entry(
            connection, security_log.entry("key.first_used")._replace(tenant=found.tenant, key=found.key)
        )
    return found
