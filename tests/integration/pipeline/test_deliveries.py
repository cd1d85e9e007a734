"""Every message may be delivered several times, late and in any order: the closure is exact all the same."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from crochet_tasks import publish
from crochet_tasks.app import Step
from crochet_tasks.broker.messages import Message
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.intake import admission
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.failing_work import Poison, poison
from tests.support.oracle import Ortho
from tests.support.steps import TEXTS, Broker
from tests.support.strategies import Limits, corpora, examples, limits

pytestmark = pytest.mark.integration

SIZES = {
    "default": {},
    "left-overs": {"batch_orthos": 7, "result_orthos": 1, "part_words": 3},
}
BAD = "new words here. and old a b. then poison"
MOST_ORTHOS = 60
STALE = 6
"""old messages that are delivered once more when all is done"""


@pytest.fixture(autouse=True)
def small_slices_and_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are small; and one word is a bug."""
    steps.cut_small(monkeypatch)
    poison(monkeypatch)


class Copy(NamedTuple):
    """A message, and how often it is still to be delivered."""

    task: Step
    call: Message
    left: int


class Unreliable(Broker):
    """Delivers every message 1 to 3 times, each time at a moment of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, chance: random.Random) -> None:
        super().__init__(patch)
        self._chance = chance
        self._copies: list[Copy] = []
        self.old: list[tuple[Step, Message]] = []
        self.delivered: Counter[str] = Counter()

    def deliver_any(self) -> bool:
        """Deliver one of the messages, whichever; whether there was one."""
        self._copies += [Copy(task, call, self._chance.randint(1, 3)) for task, call in self.messages]
        self.messages.clear()
        if not self._copies:
            return False
        copy = self._copies.pop(self._chance.randrange(len(self._copies)))
        if copy.left > 1:
            self._copies.append(copy._replace(left=copy.left - 1))
        self.old.append((copy.task, copy.call))
        self._run(copy.task, copy.call)
        return True

    def deliver_stale(self, number: int) -> None:
        """Deliver so many of the messages that were delivered long ago once more."""
        for task, call in self._chance.sample(self.old, min(number, len(self.old))):
            self._run(task, call)

    def _run(self, task: Step, call: Message) -> None:
        self.delivered[task.name] += 1
        try:
            task.apply_async(args=[call.payload()])
        except Poison:
            self.delivered["poison"] += 1


def deliver_all(corpus: Corpus, broker: Unreliable, bodies: list[str], chance: random.Random) -> None:
    """Accept texts while messages come, until there is no work; then old messages come once more."""
    waiting = list(bodies)
    while _step(corpus, broker) or waiting:
        if waiting and chance.random() < 0.2:
            admission.accept(corpus, "text", waiting.pop(0))
    broker.deliver_stale(STALE)
    while _step(corpus, broker):
        pass


def _step(corpus: Corpus, broker: Unreliable) -> bool:
    """Publish what there is and deliver a message; whether there was one."""
    broker.publish(corpus)
    return broker.deliver_any()


def check(process: Process, corpus: Corpus, bodies: list[str], wanted: Counter[Ortho]) -> None:
    """The good texts are versions in their order, the bad one has failed, and each ortho is stored once."""
    rows = steps.sql(process, "SELECT body, state FROM texts WHERE corpus = :corpus ORDER BY seq", corpus=corpus.id)
    assert rows == [(body, "failed" if body == BAD else "current") for body in bodies]
    order = steps.sql(
        process, "SELECT version FROM texts WHERE corpus = :corpus AND version > 0 ORDER BY seq", corpus=corpus.id
    )
    assert order == [(place,) for place in range(1, len(order) + 1)]
    assert steps.stored(process, corpus) == wanted
    assert verify(process, corpus, closure=True) == []


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_message_one_to_three_times(
    database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, results too, also long after their work is done, and with a text that fails among others."""
    with open_process(Settings.load(**sizes), database) as process:

        @examples(12)
        @given(corpora(max_words=40), limits(), st.integers(0, 3), st.integers(0, 1 << 32))
        @example(TEXTS[:2], Limits(3, 8, 64), 1, 0)
        def run(texts: list[str], limit: Limits, place: int, seed: int) -> None:
            good = steps.usable(texts)
            assume(good)
            wanted = steps.expected(good, limit)
            assume(len(wanted) <= MOST_ORTHOS)
            bodies = [*good[:place], BAD, *good[place:]]
            corpus, chance = steps.new_corpus(process, limit), random.Random(seed)
            broker = Unreliable(monkeypatch, chance)
            deliver_all(corpus, broker, bodies, chance)
            check(process, corpus, bodies, wanted)

        run()


def test_deliveries_do_double(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: each stage gets messages for work that is done, and the bug is met."""
    with open_process(Settings(batch_orthos=7, result_orthos=1, part_words=3), database) as process:
        corpus, chance = steps.new_corpus(process), random.Random(1)
        broker = Unreliable(monkeypatch, chance)
        deliver_all(corpus, broker, [*TEXTS, BAD], chance)
        check(process, corpus, [*TEXTS, BAD], steps.expected(TEXTS))
        distinct = Counter(task.name for task, _ in {(task, str(call)) for task, call in broker.old})
        assert set(distinct) == {*publish.TASKS.values(), "orthos.store"} - {"best.part"}
        assert all(broker.delivered[stage] > number for stage, number in distinct.items())
        assert broker.delivered["poison"] >= 1
