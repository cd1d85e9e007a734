"""Style, scripts and pictures of the page. Their address holds a digest of all of them, so browsers keep them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from flask import Blueprint, Flask, Response, send_from_directory, url_for

FOLDER = Path(__file__).parent / "static"
blueprint = Blueprint("files", __name__)


def install(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.jinja_env.globals["file"] = address


@functools.cache
def digest() -> str:
    """Changes with any of the files: scripts import each other by relative addresses, so they are one thing."""
    found = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def address(name: str) -> str:
    return url_for("files.one", of=digest(), name=name)


@blueprint.get("/static/<of>/<name>")
def one(of: str, name: str) -> Response:
    """A file. One of another release is answered, too, as it is now, but not kept."""
    response = send_from_directory(FOLDER, name)
    kept = of == digest()
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
    return response
