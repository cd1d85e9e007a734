"""The blueprint that all views belong to, and how they render."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final, ParamSpec
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app, g, make_response, redirect, render_template, request, url_for

from api import process, security
from crochet_tasks.access.keys import Scope
from crochet_tasks.db import tenants
from crochet_tasks.errors import OperatorNeeded

P = ParamSpec("P")

blueprint = Blueprint("page", __name__, template_folder="templates")

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
THEMES = ("light", "dark")
THEME_COOKIE = "crochet_theme"


def install(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.after_request(_headers)
    app.jinja_env.globals.update(
        may=may,
        operates=operates,
        links=links,
        listed=listed,
        theme=theme,
        here=here,
        takes_keys=takes_keys,
        has_oidc=has_oidc,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def show(template: str, code: int = HTTPStatus.OK, **values: Any) -> Response:
    """A page, which browsers keep for their back button only."""
    response = make_response(render_template(template, **values), code)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def to(endpoint: str, **values: Any) -> Response:
    """A redirect to another page after a form was taken: the browser reads it with GET."""
    return make_response(redirect(url_for(f"{blueprint.name}.{endpoint}", **values), HTTPStatus.SEE_OTHER))


def is_page() -> bool:
    """Whether the request is for a page of ours, or for nothing at all from somebody who reads HTML."""
    if request.blueprint == blueprint.name:
        return True
    return request.endpoint is None and not request.path.startswith(("/v1/", "/health", "/docs", "/problems"))


def reads_html() -> bool:
    """Whether the client wants HTML rather than JSON. What says nothing, or takes anything, is a program."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


DOOR = "crochet.door"
"""extension: there where people come in another way than by a key, see local.py"""


def takes_keys() -> bool:
    return DOOR not in current_app.extensions


def has_oidc() -> bool:
    """Whether people may log in at an OpenID provider."""
    return process.settings().oidc_issuer is not None and process.settings().oidc_client_id is not None


def may(scope: Scope, *, whole: bool = False) -> bool:
    """Whether the caller has a scope, `whole`: for all of the tenant. What would be refused is not shown."""
    found = g.get("caller")
    unsigned = scope in security.SIGNED and process.settings().signed_admin  # a page cannot sign
    if found is None or unsigned or (whole and found.corpora is not None):
        return False
    return scope in found.scopes


def operates() -> bool:
    """Whether what is for operators is shown: a page cannot sign."""
    return may("admin", whole=True) and security.operates()


def reach() -> int | None:
    """Whose work, keys and log the caller sees: their tenant's; of operators None, which is everybody's."""
    return None if operates() else security.caller().tenant


def asked_tenant() -> tuple[int | None, dict[str, str]]:
    """Of whom a list is asked for, by operators with `?tenant=NAME`; and the filters of its address that say so.

    Raises TenantUnknown.
    """
    name = request.args.get("tenant")
    if not name or not operates():
        return reach(), {}
    with process.current().database.snapshot() as connection:
        return tenants.number(connection, name), {"tenant": name}


def for_operators(view: Callable[P, Response]) -> Callable[P, Response]:
    """Raise OperatorNeeded from a view unless the caller is one. It stands below `requires`."""

    @functools.wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Response:
        if not operates():
            raise OperatorNeeded
        return view(*args, **kwargs)

    return checked


def links() -> list[tuple[str, str]]:
    """What else operators look at, where settings name its address."""
    known = process.settings()
    named = (("Flower", known.flower_url), ("Grafana", known.grafana_url))
    return [(name, address) for name, address in named if address is not None and operates()]


def listed(filters: dict[str, Any], **cursor: str) -> str:
    """The address of this list with these filters, from a cursor on."""
    return url_for(request.endpoint or "", **{**(request.view_args or {}), **filters, **cursor})


def theme() -> str:
    """The theme that was chosen; empty: that of the system."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else ""


def here() -> str:
    """The address of this page on this site, where a form may lead back to."""
    return request.full_path.rstrip("?") if request.method == "GET" else "/"


MOST_BACK = 1000
"""characters of an address to go back to, as ASCII: a cookie keeps it, and browsers keep none above 4 KB"""


def local(address: str) -> str:
    """An address of this site as it is; of any other, and of what is none, that of the first page."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # brackets that close nothing, characters that are others in a host's name
        return "/"
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain and len(ascii(address)) <= MOST_BACK and not parts.scheme and not parts.netloc else "/"


def _headers(response: Response) -> Response:
    if is_page() and response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        response.headers.setdefault("Referrer-Policy", "same-origin")  # over TLS, the CSRF check reads the referrer
        response.vary.update(["Cookie", "Accept"])
    return response


def as_csv(name: str, rows: Iterable[Sequence[object]]) -> Response:
    """A table as a file; None is an empty field."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    response = Response(text.getvalue(), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["Cache-Control"] = "private, no-cache"
    return response
