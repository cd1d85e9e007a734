"""The page: what the API reads, as HTML. One thin view module per page and one template; how to add one: docs/page.md.

It is a part of the API's application and has no rules of its own: the same read side, scopes, limits and errors.
"""

from __future__ import annotations

from collections.abc import Callable

from flask_openapi import OpenAPI

import api
from api import security
from api.security import Caller
from crochet_tasks.settings import Settings
from web import (  # noqa: F401 - views register themselves when they are imported
    add_texts,
    audit,
    best,
    console,
    context,
    corpora,
    corpus,
    corpus_settings,
    entry,
    errors,
    files,
    gallery,
    keys,
    log,
    oidc,
    ortho,
    pages,
    queues,
    second_factor,
    session,
    tenants,
    text,
    word,
    words,
    work,
)


def create_app(settings: Settings | None = None, who: Callable[[], Caller] = session.caller) -> OpenAPI:
    """The API with the page. `who` says who asks for a page; raises NotLoggedIn. Raises AuthOff as `api.create_app`."""
    app = api.create_app(settings)
    app.extensions[security.PAGES] = {pages.blueprint.name: who}
    for part in (session, pages, errors, files, words):
        part.install(app)
    return app
