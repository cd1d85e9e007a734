"""SIGTERM under load: a worker finishes its running tasks or returns their messages, in a bounded time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import Cluster, accept, check, corpus_of, until, until_closed
from tests.support.collectors import log_lines
from tests.support.commands import RELAY, SEARCH, STAGES, STORE
from tests.support.faulty import faulty

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

TEXTS = pieces("garden.txt", 2)
SIZES = {"CROCHET_BATCH_ORTHOS": "4", "CROCHET_RESULT_ORTHOS": "100", "CROCHET_LEASE": "20"}


class Load(NamedTuple):
    """A deployment under load, and the searcher that runs a slow task."""

    deployment: Cluster
    process: Process
    corpus: Corpus
    slow: str


@pytest.fixture
def load(deploy: Deploy, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Load]:
    """Its parameters: the fault, how long the slow task takes, and how long a worker may drain."""
    fault, task, drain = request.param
    deployment = deploy(**SIZES, CROCHET_DRAIN=str(drain))
    with deployment.process() as process:
        corpus, marker = corpus_of(process, Limits()), tmp_path / "marker"
        for command in (RELAY, STAGES, STORE):
            deployment.start(*command)
        slow = deployment.start(*SEARCH, program=faulty(fault, "search.part", str(marker), str(task)))
        accept(process, corpus, TEXTS)
        until(marker.exists, deployment, 30)
        yield Load(deployment, process, corpus, slow)
        deployment.start(*SEARCH)
        until_closed(process, corpus, deployment, 60)
        check(process, corpus, steps.expected(TEXTS))


def stop(load: Load, *numbers: signal.Signals) -> tuple[int, float]:
    """Send these signals, the next one when the log shows the one before; the exit status and how long it took."""
    began = time.monotonic()
    for place, number in enumerate(numbers, 1):
        load.deployment.terminate(load.slow, number)
        if place < len(numbers):
            until(lambda: '"event": "draining"' in load.deployment.log(load.slow), load.deployment, 10)
    return load.deployment.ended(load.slow, 30), time.monotonic() - began


@pytest.mark.parametrize("load", [("slow", 1.5, 20)], indirect=True, ids=["drains"])
def test_a_worker_finishes_its_running_task(load: Load) -> None:
    """It says what it waits for, ends with 0 when that is done, and takes nothing more."""
    status, seconds = stop(load, signal.SIGTERM)
    lines = log_lines(load.deployment.log(load.slow))
    events = [line["event"] for line in lines]
    asked = events.index("draining")
    assert status == 0
    assert seconds < 15  # far less than it may take
    assert lines[asked]["running"].startswith("search.part (corpus ")
    assert events[asked:].count("task_done") == 1
    assert not any(" received" in line.get("message", "") for line in lines[asked:])


@pytest.mark.parametrize("load", [("slow", 60, 1)], indirect=True, ids=["hands back"])
def test_a_worker_hands_back_what_takes_too_long(load: Load) -> None:
    """After its drain it ends with 0; another worker runs its task."""
    status, seconds = stop(load, signal.SIGTERM)
    assert status == 0
    assert 1 <= seconds < 10
    check_forced(load, "not done after 1 s")


@pytest.mark.parametrize("load", [("slow", 60, 60)], indirect=True, ids=["forced"])
def test_a_second_signal_ends_a_worker_at_once(load: Load) -> None:
    """It does not wait, and its exit status is that of the signal."""
    status, seconds = stop(load, signal.SIGTERM, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert seconds < 10
    check_forced(load, "second signal")


def check_forced(load: Load, why: str) -> None:
    """It ended at once and logged why, and its running tasks."""
    [line] = [each for each in log_lines(load.deployment.log(load.slow)) if each["event"] == "drain_aborted"]
    assert (line["why"], line["running"][:20]) == (why, "search.part (corpus ")


@pytest.mark.parametrize("load", [("deaf", 1, 5)], indirect=True, ids=["just taken up"])
def test_a_task_that_was_only_just_taken_up(load: Load) -> None:
    """The signal comes before the worker has heard that its child has begun: it ends when the task is done, too."""
    status, _ = stop(load, signal.SIGTERM)
    assert status == 0
    assert "drain_aborted" not in load.deployment.log(load.slow)  # it did not need its whole drain
