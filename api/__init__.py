"""The REST API: it accepts, shows and checks. It does only I/O; no request searches or waits for a task."""

from __future__ import annotations

import secrets

from flask_openapi import Info, OpenAPI
from pydantic import SecretStr

from api import (
    audit,
    batch,
    best,
    corpora,
    deprecation,
    documents,
    events,
    form,
    health,
    keys,
    limits,
    middleware,
    orthos,
    problems,
    request_metrics,
    routes,
    security,
    tenants,
    texts,
    tokens,
    version,
    work,
)
from crochet_tasks import telemetry
from crochet_tasks.settings import SECRET_BYTES, Settings


def create_app(settings: Settings | None = None) -> OpenAPI:
    """A new application. Its pool and caches are opened by the first request that needs them, after any fork.

    Raises AuthOff where the settings leave it open to more than this machine.
    """
    app = OpenAPI(
        __name__,
        info=Info(title="crochet-tasks", version="1", description="Finds every box of words whose lines are phrases."),
        doc_ui=False,  # documents.py describes problems, too, and needs no script in the page
        security_schemes=routes.SCHEMES,
        validation_error_status=422,
        validation_error_callback=problems.invalid,
    )
    app.before_request(security.sample)  # before the span of the request
    telemetry.instrument(app)
    app.extensions["crochet.settings"] = with_secret(settings or Settings.load())
    # The order in which a request passes them: its id, the caller, rate limits, permission, its form.
    request_metrics.install(app)
    middleware.install(app)
    security.install(app)
    limits.install(app)
    deprecation.install(app)
    form.install(app)
    app.before_request(form.limit)
    app.before_request(security.admit)
    app.before_request(form.check)
    problems.install(app)
    app.url_map.converters["unreserved"] = orthos.Unreserved
    app.register_blueprint(documents.docs)
    app.register_api(health.api)
    app.register_api(tokens.api)
    for each in (corpora, texts, batch, version, orthos, best, work, events, audit, keys, tenants):
        app.register_api(each.api)
    app.register_api(work.of_tenant)
    return app


def with_secret(settings: Settings) -> Settings:
    """In development a secret for access tokens is made up: they are valid until the server ends."""
    if settings.jwt_secret is not None or settings.environment != "development":
        return settings
    return settings.model_copy(update={"jwt_secret": SecretStr(secrets.token_urlsafe(2 * SECRET_BYTES))})
