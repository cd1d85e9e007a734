"""The REST API. So far it can say that it lives."""

from __future__ import annotations

from flask import Blueprint, Flask
from flask.typing import ResponseReturnValue

health = Blueprint("health", __name__, url_prefix="/health")


@health.get("/live")
def live() -> ResponseReturnValue:
    """The process answers; nothing is said about what it needs."""
    return {"status": "live"}


def create_app() -> Flask:
    """A new application; it holds no state of its own."""
    app = Flask(__name__)
    app.register_blueprint(health)
    return app
