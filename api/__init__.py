"""The REST API: it accepts, shows and checks. It does only I/O; no request searches or waits for a task."""

from __future__ import annotations

from flask_openapi import Info, OpenAPI

from api import health, middleware, problems, security
from crochet_tasks.settings import Settings


def create_app(settings: Settings | None = None) -> OpenAPI:
    """A new application. What it holds (pool, caches) it opens on the first request that needs it, after any fork."""
    settings = settings or Settings.load()
    app = OpenAPI(
        __name__,
        info=Info(title="crochet-tasks", version="1", description="Finds every box of words whose lines are phrases."),
        doc_prefix="/",
        doc_url="/openapi.json",
        security_schemes=security.SCHEMES,
        validation_error_status=422,
        validation_error_callback=problems.invalid,
    )
    app.extensions["crochet.settings"] = settings
    middleware.install(app)
    problems.install(app)
    app.register_api(health.api)
    return app
