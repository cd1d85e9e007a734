"""What a page says of a search for the best: it must be true in every state."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from crochet_tasks.schemas.best import BestJob
from web import words


@pytest.fixture(scope="module")
def proofs() -> Any:  # the macros of a template, by name
    app = Flask("web")
    words.install(app)
    with app.app_context():
        return app.jinja_env.get_template("proof.html").module


def job(**values: object) -> BestJob:
    """Two orthos of 3x3 are listed for certain, and the next one so far is a 2x4."""
    large = {"id": "a", "shape": [3, 3], "words": list("abcdefghi"), "volume": 4, "cells": 9}
    small = {"id": "b", "shape": [2, 4], "words": list("abcdefgh"), "volume": 3, "cells": 8}
    nothing = dict.fromkeys(BestJob.model_fields)
    given = {"id": "best-1", "corpus": "c", "version": 1, "state": "running", "limits": {}, "best": [large, large]}
    more = {"found": {"3x3": 2}, "incumbent": small, "empty": [], "too_large": [], "created_at": "2026-01-01T00:00Z"}
    return BestJob.model_validate({**nothing, **given, **more, **values})


def said(html: str) -> str:
    return " ".join(html.split())


def test_what_is_less_than_the_certain_ones_is_not_called_the_best(proofs: Any) -> None:
    sizes = {"upper": {"volume": 3, "cells": 9}}
    assert said(proofs.claim(job(top=5))) == (
        "The next one so far has volume 3 with 8 cells; how large it can be is not known yet."
    )
    assert said(proofs.claim(job(top=5, **sizes))) == (
        "No other ortho of version 1 is larger than volume 3 with 9 cells; "
        "the next one so far has volume 3 with 8 cells."
    )
    assert said(proofs.claim(job(best=[], found={}))).startswith(
        "The best so far has volume 3 with 8 cells; how large one"
    )


def test_a_part_of_the_best_is_called_one(proofs: Any) -> None:
    """`found` counts all orthos of a shape, also those beyond the wanted number."""
    one = job().best[0].model_dump()
    assert said(proofs.part(job(top=2, state="proven", found={"3x3": 16}), 2)) == ""
    assert said(proofs.part(job(top=20, best=[one] * 20, found={"3x3": 30}), 12)) == "The first 12 of 20, best first."
    assert said(proofs.part(job(found={"3x3": 2}), 2)) == ""
    assert said(proofs.part(job(found={"3x3": 5}), 2)) == "The first 2 of 5, in alphabetical order."
