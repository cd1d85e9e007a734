"""SIGTERM under load: a worker finishes its running tasks or returns their messages, in a bounded time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import Cluster, accept, check, corpus_of, until, until_closed
from tests.support.collectors import log_lines
from tests.support.commands import RELAY, SEARCH, STAGES, STORE
from tests.support.faulty import faulty
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

TEXTS = pieces("garden.txt", 2)
SIZES = {"CROCHET_BATCH_ORTHOS": "4", "CROCHET_RESULT_ORTHOS": "100", "CROCHET_LEASE": "20"}


LONG = 3 * SECONDS
"""seconds to drain: a worker that ends at all has not waited for them"""


class Load(NamedTuple):
    """A deployment under load, and the searcher that runs a task which waits for `end`."""

    deployment: Cluster
    slow: str
    end: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.deployment.terminate(self.slow, number)

    def until_draining(self) -> None:
        until(lambda: '"event": "draining"' in self.deployment.log(self.slow), self.deployment)

    def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """Exit status and log."""
        return self.deployment.ended(self.slow), log_lines(self.deployment.log(self.slow))


@pytest.fixture
def load(deploy: Deploy, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Load]:
    """Its parameters: the fault, and how long a worker may drain."""
    fault, drain = request.param
    deployment = deploy(**SIZES, CROCHET_DRAIN=str(drain))
    with deployment.process() as process:
        corpus, marker = corpus_of(process, Limits()), tmp_path / "marker"
        for command in (RELAY, STAGES, STORE):
            deployment.start(*command)
        slow = deployment.start(*SEARCH, program=faulty(fault, "search.part", str(marker)))
        accept(process, corpus, TEXTS)
        until(marker.exists, deployment)
        yield Load(deployment, slow, tmp_path / "marker-end")
        deployment.start(*SEARCH)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(TEXTS))


@pytest.mark.parametrize("load", [("slow", LONG)], indirect=True, ids=["drains"])
def test_a_worker_finishes_its_running_task(load: Load) -> None:
    """It says what it waits for, ends with 0 when that is done, and takes nothing more."""
    load.stop()
    load.until_draining()
    load.end.touch()
    status, lines = load.ended()
    events = [line["event"] for line in lines]
    asked = events.index("draining")
    assert status == 0
    assert lines[asked]["running"].startswith("search.part (corpus ")
    assert events[asked:].count("task_done") == 1
    assert not any(" received" in line.get("message", "") for line in lines[asked:])


@pytest.mark.parametrize("load", [("slow", 1)], indirect=True, ids=["hands back"])
def test_a_worker_hands_back_what_takes_too_long(load: Load) -> None:
    """After its drain it ends with 0; another worker runs its task."""
    load.stop()
    status, lines = load.ended()
    assert status == 0
    check_forced(lines, "not done after 1 s")


@pytest.mark.parametrize("load", [("slow", LONG)], indirect=True, ids=["forced"])
def test_a_second_signal_ends_a_worker_at_once(load: Load) -> None:
    """It does not wait, and its exit status is that of the signal."""
    load.stop()
    load.until_draining()
    load.stop(signal.SIGINT)
    status, lines = load.ended()
    assert status == 128 + signal.SIGINT
    check_forced(lines, "second signal")


def check_forced(lines: list[dict[str, Any]], why: str) -> None:
    """It ended at once and logged why, and its running tasks."""
    [line] = [each for each in lines if each["event"] == "drain_aborted"]
    assert (line["why"], line["running"][:20]) == (why, "search.part (corpus ")


@pytest.mark.parametrize("load", [("deaf", LONG)], indirect=True, ids=["just taken up"])
def test_a_task_that_was_only_just_taken_up(load: Load) -> None:
    """The signal comes before the worker has heard that its child has begun: it ends when the task is done, too."""
    load.stop()
    load.end.touch()
    status, lines = load.ended()
    assert status == 0
    assert "drain_aborted" not in [line["event"] for line in lines]  # it did not need its whole drain
