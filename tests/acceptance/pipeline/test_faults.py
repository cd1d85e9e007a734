"""Killed at a named point: whatever a stage had done by then, its work is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import best, steps
from tests.support.bodies import pieces
from tests.support.cluster import Cluster, accept, check, closed, corpus_of, until
from tests.support.commands import EVERYTHING, RELAY
from tests.support.faulty import POINTS, STAGES, faulty
from tests.support.faulty import RELAY as OF_RELAY

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

SERVICE, CHILD = "service", "child"
LONGER = {("after commit", SERVICE), ("after publish", SERVICE), ("after publish", CHILD)}
CASES = [*((point, SERVICE) for point in POINTS), ("before commit", CHILD), ("after publish", CHILD)]


@pytest.mark.parametrize(
    ("point", "whom"),
    [pytest.param(*case, id="-".join(case), marks=[pytest.mark.long] if case in LONGER else []) for case in CASES],
)
def test_killed_at_a_point(deploy: Deploy, tmp_path: Path, point: str, whom: str) -> None:
    """Each stage, and the relay, is killed once at this point and started again: nothing is lost or doubled."""
    small = {"CROCHET_BATCH_ORTHOS": "4", "CROCHET_RESULT_ORTHOS": "1", "CROCHET_BEST_PART_VISITS": "1"}
    deployment = deploy(CROCHET_LEASE="1.5", **small)
    markers = tmp_path / "markers"
    markers.mkdir()
    wanted = {*STAGES, *([OF_RELAY] if point != "before ack" else [])}
    with deployment.process() as process:
        corpus, bodies, spare = corpus_of(process, Limits()), list(steps.TEXTS), pieces("garden.txt", 10)
        accept(process, corpus, bodies)
        for command in (RELAY, EVERYTHING, EVERYTHING):
            deployment.start(*command, program=faulty("die", point, whom, str(markers)))
        deaths = _until(lambda: closed(process, corpus), deployment)
        best.ask(process, corpus)
        deaths += _until(lambda: best.read(process, corpus).state == "proven", deployment)
        while spare and _hit(markers) != wanted:  # the relay was quicker with all that a stage had to publish
            bodies.append(spare.pop())
            accept(process, corpus, bodies[-1:])
            best.ask(process, corpus)
            deaths += _until(lambda: closed(process, corpus), deployment)
            deaths += _until(lambda: best.read(process, corpus).state == "proven", deployment)
        assert _hit(markers) == wanted
        services = wanted if whom == "service" else wanted - {*STAGES}  # a child its worker replaces
        assert deaths == Counter("relay" if stage == OF_RELAY else "worker" for stage in services)
        check(process, corpus, steps.expected(bodies))
        assert best.orthos(best.read(process, corpus, "best-1")) == best.expected(list(steps.TEXTS), Scope())


def _hit(markers: Path) -> set[str]:
    return {marker.name for marker in markers.iterdir()}


def _until(condition: Callable[[], bool], deployment: Cluster) -> Counter[str]:
    """Start again what dies until all is done; how often what died."""
    deaths: Counter[str] = Counter()

    def done() -> bool:
        deaths.update(name.partition("-")[2] for name in deployment.start_dead())
        return condition()

    until(done, deployment)
    return deaths
