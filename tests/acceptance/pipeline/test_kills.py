"""Random kills: whatever dies, whenever it does, the closure comes out exact."""

from __future__ import annotations

import logging
import random
import signal
import time
from contextlib import suppress
from os import kill
from typing import NamedTuple

import pytest

from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import history, steps
from tests.support.bodies import pieces
from tests.support.cluster import Cluster, accept, check, closed, corpus_of, until, until_closed
from tests.support.server import take_port

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

log = logging.getLogger(__name__)

KILLS = 32
PAUSE_SECONDS = 0.7
PIECES = pieces("market.txt", 50)
TEXTS = ["".join(PIECES[:-KILLS]), *PIECES[-KILLS:]]
"""the first one makes so much work that the others come while it is being done: one before a kill, at the most"""
SIZES = {"CROCHET_BATCH_ORTHOS": "10", "CROCHET_PART_WORDS": "20", "CROCHET_RESULT_ORTHOS": "100"}


class Kill(NamedTuple):
    """One that was killed, and how much work there was: of a service all processes were, or one child."""

    name: str
    child: bool
    open: int
    done: int


class Killer:
    """Kills services of a deployment, by chance, and has them started again at once."""

    def __init__(self, deployment: Cluster, chance: random.Random) -> None:
        self._deployment, self._chance = deployment, chance
        self.kills: list[Kill] = []

    def strike(self, process: Process, corpus: Corpus) -> None:
        """Kill one of those that have begun to serve; a child alone is replaced by its service."""
        name = self._chance.choice(self.ready())
        children = self._deployment.children(name)
        alone = bool(children) and self._chance.random() < 0.3
        with process.database.transaction() as connection:
            states = tally.states(connection, corpus.id)
        if alone:
            with suppress(ProcessLookupError):
                kill(self._chance.choice(children), signal.SIGKILL)
        else:
            self._deployment.kill(name)
            self._deployment.start_again(name)
        self.kills.append(Kill(name, alone, states.open, states.done))

    def ready(self) -> list[str]:
        return sorted(name for name in self._deployment.processes if self._deployment.has_been_ready(name))


def searches(process: Process, corpus: Corpus) -> bool:
    """Whether a search has been stored."""
    rows = "SELECT FROM work WHERE corpus = :corpus AND kind = 'search' AND state = 'done' LIMIT 1"
    return bool(steps.sql(process, rows, corpus=corpus.id))


@pytest.mark.timeout(900)  # some 60 s of work on two quiet cores
@pytest.mark.long
def test_nothing_is_lost_by_kills_at_random_moments(deploy: Deploy) -> None:
    """Workers, their children, relay and API are killed during ingestion and search, over and over: nothing is lost."""
    deployment = deploy(**SIZES, CROCHET_LEASE="3")
    chance = random.Random(2026)  # what is struck, not at which moment of its work
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start_whole(searchers=2)
        deployment.start("api", CROCHET_API_PORT=str(take_port()))
        accept(process, corpus, TEXTS[:1])
        until(lambda: searches(process, corpus), deployment)
        killer, waiting = Killer(deployment, chance), TEXTS[1:]
        while len(killer.kills) < KILLS:
            until(killer.ready, deployment)
            if closed(process, corpus) or chance.random() < 0.5:
                accept(process, corpus, [waiting.pop(0)])
            killer.strike(process, corpus)
            deployment.start_dead()
            time.sleep(PAUSE_SECONDS * chance.uniform(0.5, 1.0))  # the pace of the kills: in between they get on
        accept(process, corpus, waiting)
        until_closed(process, corpus, deployment, deployment.start_dead)
        check(process, corpus, steps.expected(TEXTS))
        history.check_paths(process)
    log.info("%s", "\n".join(map(str, killer.kills)))
    assert sum(1 for struck in killer.kills if struck.open) >= 30  # there was work, but for a text that just ended
    assert killer.kills[-1].done > killer.kills[0].done  # and it was being done
