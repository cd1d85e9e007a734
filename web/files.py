"""Style, scripts and pictures of the page. Their address holds a digest of all of them, so browsers keep them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from flask import Blueprint, Flask, Response, request, url_for

from crochet_tasks.errors import NotFound

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
blueprint = Blueprint("files", __name__)


def install(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.jinja_env.globals["file"] = address


@functools.cache
def digest() -> str:
    """Changes with any of the files: scripts import each other by relative addresses, so they are one thing."""
    found = hashlib.sha256()
    for name, content in sorted(_contents().items()):
        found.update(name.encode() + b"\0" + content)
    return found.hexdigest()[:16]


def address(name: str) -> str:
    return url_for("files.one", of=digest(), name=name)


@blueprint.get("/static/<of>/<name>")
def one(of: str, name: str) -> Response:
    """A file. One of another release is answered, too, as it is now, but not kept."""
    content = _contents().get(name)
    if content is None:
        raise NotFound(what="file", name=name[:100])
    response = Response(content, mimetype=TYPES[Path(name).suffix])
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if of == digest() else "no-cache"
    response.set_etag(digest(), weak=True)  # what is compressed has no strong one
    response.make_conditional(request)
    return response


@functools.cache
def _contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}
