"""A corpus: how many orthos of which shape, its best ones, how it grew, its texts, and how far the work is."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response, abort, request
from pydantic import ValidationError

from api import events as streams
from api import problems, resources, security
from api.parameters import EventsQuery
from crochet_tasks.db import tally, texts
from crochet_tasks.engine.geometry import volume
from crochet_tasks.intake import posted
from crochet_tasks.query.answers import Growth
from crochet_tasks.query.pages import FoundOrtho
from crochet_tasks.reporting import reports, statistics
from crochet_tasks.schemas.answers import ShapeLine
from crochet_tasks.schemas.reports import Estimate
from web import best as proofs
from web import grids, plots
from web.grids import Layer
from web.pages import as_csv, blueprint, show

BEST, TEXTS_AT_ONCE, SHAPES_SHOWN, VERSIONS_SHOWN = 6, 50, 12, 30


class Bar(NamedTuple):
    """A shape, with the length of its bar in per cent."""

    line: ShapeLine
    volume: int
    width: float


class Shown(NamedTuple):
    """An ortho and its grid."""

    ortho: FoundOrtho
    layers: list[Layer]
    rtl: bool

    @property
    def columns(self) -> int:
        """Columns of words, of all layers side by side; what has more takes the whole width."""
        return min(12, sum(layer.columns for layer in self.layers))


def shown(ortho: FoundOrtho, across: int | None = None) -> Shown:
    return Shown(ortho, grids.layers(ortho.sides, ortho.words, across), grids.right_to_left(ortho.words))


@blueprint.get("/corpora/<name>")
@security.requires("read")
def corpus(name: str) -> Response:
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, found):
        status = reports.corpus_status(connection, found, statistics.COUNTED, message=statistics.for_tenants)
        spent = tally.spent(connection, found.id)
        shapes = catalog.shapes(connection, found)
        best = catalog.best(connection, found, BEST)
        job = proofs.newest(connection, found)
        growth = catalog.growth(connection, found)
        latest = texts.page(connection, found.id, max(0, _last(status.texts) - TEXTS_AT_ONCE), None, TEXTS_AT_ONCE)
    most = max((each.orthos for each in shapes), default=0)
    return show(
        "corpus.html",
        corpus=found,
        status=status,
        spent=spent,
        bars=[Bar(each, volume(tuple(each.shape)), plots.share(each.orthos, most)) for each in shapes],
        few=SHAPES_SHOWN,
        best=[shown(each) for each in best],
        job=job,
        growth=[growth[place] for place in plots.sampled(growth, VERSIONS_SHOWN)],
        curves=_curves(growth),
        texts=[posted.line(row) for row in reversed(latest)],
        estimate=_estimate(name) if "estimate" in request.args else None,
    )


class Grown(NamedTuple):
    """What a corpus had of something by version, as a line; `begin` and `end` of it."""

    what: str
    curve: plots.Curve
    begin: int
    end: int


def _curves(growth: list[Growth]) -> list[Grown]:
    """A line needs two versions of which it is known."""
    values: dict[str, list[int | None]] = {
        "orthos": [each.orthos for each in growth],
        "phrases": [each.phrases for each in growth],
    }
    found = []
    for what, line in values.items():
        known = [value for value in line if value is not None]
        if len(known) > 1:
            found.append(Grown(what, plots.curve(line), known[0], known[-1]))
    return found


@blueprint.get("/corpora/<name>/growth.csv")
@security.requires("read")
def growth_data(name: str) -> Response:
    """Every version; orthos are left out where it is unknown how many of them it had."""
    with resources.open_corpus(name) as (connection, found):
        growth = resources.catalog().growth(connection, found)
    return as_csv(f"{found.name}-growth", [Growth._fields, *growth])


@blueprint.get("/corpora/<name>/shapes.csv")
@security.requires("read")
def shapes_data(name: str) -> Response:
    """Every shape, best first."""
    with resources.open_corpus(name) as (connection, found):
        shapes = resources.catalog().shapes(connection, found)
    rows = [("x".join(map(str, each.shape)), volume(tuple(each.shape)), each.orthos) for each in shapes]
    return as_csv(f"{found.name}-shapes", [("shape", "volume", "orthos"), *rows])


def _last(states: dict[str, int]) -> int:
    """About the number of the last text: they are numbered from 1."""
    return sum(states.values())


def _estimate(name: str) -> Estimate:
    """How many orthos there are, stored or not: it takes seconds, so only who asks for it waits."""
    with resources.open_corpus(name) as (connection, found):
        tree = resources.catalog().store.phrases(connection, found).tree
    return resources.estimates().of(found, tree)


@blueprint.get("/corpora/<name>/texts")
@security.requires("read")
def texts_of(name: str) -> Response:
    after = request.args.get("after", 0, type=int)
    with resources.open_corpus(name) as (connection, found):
        rows = texts.page(connection, found.id, max(0, min(after, 2**31 - 1)), None, TEXTS_AT_ONCE + 1)
    lines = [posted.line(row) for row in rows[:TEXTS_AT_ONCE]]
    following = lines[-1].seq if len(rows) > TEXTS_AT_ONCE else None
    return show("texts.html", corpus=found, texts=lines, after=after, following=following)


@blueprint.get("/corpora/<name>/events")
@security.requires("read")
def events(name: str) -> Response:
    """The API's events of this corpus, for the session of a page."""
    try:
        query = EventsQuery(corpus=name)
    except ValidationError as error:
        abort(problems.invalid(error))
    response = streams.follow(query)
    assert isinstance(response, Response)
    return response
