"""A corpus: how many orthos of which shape, its best ones, its texts, and how far the work is."""

from __future__ import annotations

from flask import Response

from api import resources, security
from web.pages import blueprint, show


@blueprint.get("/corpora/<name>")
@security.requires("read")
def corpus(name: str) -> Response:
    with resources.open_corpus(name) as (_, found):
        pass
    return show("corpus.html", corpus=found)
