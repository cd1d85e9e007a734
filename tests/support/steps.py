"""What integration tests do with a process: make a corpus, accept texts, run the work, read the store."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from sqlalchemy import text

from crochet_tasks import publish as work
from crochet_tasks.app import Step
from crochet_tasks.broker.messages import Message
from crochet_tasks.db import batches, corpora
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process
from crochet_tasks.engine import frontier, search
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.tree import Tree
from crochet_tasks.intake import admission
from crochet_tasks.verify import verify
from tests.support import oracle
from tests.support.oracle import Ortho
from tests.support.strategies import brute_force
from tests.support.waiting import eventually

_names = itertools.count()

SIZES = {
    "default": {},
    "batches of 1": {"batch_orthos": 1},
    "batches of 2": {"batch_orthos": 2},
    "batches of 7": {"batch_orthos": 7},
    "left-overs": {"batch_orthos": 7, "result_orthos": 1},
    "texts in parts": {"part_words": 1},
}
sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
WAYS = {"either way": search.ENUMERATE_FROM, "enumerating": 0.0, "outward": 2.0}
ways = pytest.mark.parametrize("share", WAYS.values(), ids=WAYS)
TEXTS = [
    "a b c, d e f, a d, b e, c f, b d, e a, d c, x y",
    "a b c j, d e f k, j k, g h i, a d g, b e h, c f i, b f, e c, f a",
    "a l, b m, d n, e o, l m, n o, l n, m o, c p, f q, l m p, n o q, p q, j r, k s, m r s, e b, l d",
]
"""Three texts with orthos of six shapes; each makes older ones grow, the last one along a third axis."""


def new_corpus(process: Process, limits: Iterable[int] = Limits(), name: str | None = None) -> Corpus:
    """A new corpus, by default with a name that no other has: one database serves many of them."""
    with process.database.transaction() as connection:
        wanted = Limits(*limits)._asdict()
        return corpora.get_or_create(connection, name or f"corpus-{next(_names)}", wanted)


def usable(texts: Iterable[str]) -> list[str]:
    """The texts that are accepted, each once: those with words."""
    return [body for body in dict.fromkeys(texts) if oracle.sentences(body)]


def accept(corpus: Corpus, *texts: str) -> None:
    for body in texts:
        admission.accept(corpus, body[:20], body)


def run(corpus: Corpus) -> list[Item]:
    """Do all open work, as the relay publishes it; returns the items in the order in which they were published."""
    return list(iter(lambda: work.publish_next(corpus.id), None))


def closure_of(
    process: Process, texts: Sequence[str], limits: Iterable[int] = Limits(), *, at_once: bool = False
) -> Counter[Ortho]:
    """Accept texts into a new corpus and do all the work, after each text or after all; returns what is stored."""
    corpus = new_corpus(process, limits)
    ingest_all(corpus, texts, at_once=at_once)
    return stored(process, corpus)


def ingest_all(corpus: Corpus, texts: Sequence[str], *, at_once: bool = False) -> None:
    for body in texts:
        accept(corpus, body)
        if not at_once:
            run(corpus)
    run(corpus)


def expected(texts: Sequence[str], limits: Iterable[int] = Limits()) -> Counter[Ortho]:
    """What must be stored: the oracle's orthos, each once."""
    return Counter(brute_force(texts, limits).keys())


def stored(process: Process, corpus: Corpus) -> Counter[Ortho]:
    """How often each ortho is stored."""
    found: Counter[Ortho] = Counter()
    with process.database.snapshot() as connection:
        tree = process.tree(connection, corpus.id, corpora.version(connection, corpus.id))
        for batch in batches.every(connection, corpus.id):
            found.update(decoded(tree, batch))
    return found


def decoded(tree: Tree, batch: Batch) -> Iterator[Ortho]:
    rows = batches.unpacked(batch.stored, batch.packed, tree)
    for row in tree.numbering(batch.stored.numbering)[rows]:
        yield batch.stored.sides, tuple(word for line in row for word in tree.phrase(int(line)))


def cut_small(patch: pytest.MonkeyPatch) -> None:
    """Have searches lengthen few boxes at once; and where a result has one ortho, parts have a few starts."""
    patch.setattr(search, "PART_SQUARES", 8 * search.Bounds().result_orthos)
    patch.setattr(search, "PART_PHRASES", 8 * search.Bounds().result_orthos)
    patch.setattr(frontier, "SLICE", 3)


def intercept(patch: pytest.MonkeyPatch, sent: Callable[[Step, Message], object]) -> None:
    """Have `sent` called with every message that is published, instead of a broker."""

    def publish(task: Step, call: Message) -> None:
        sent(task, call)

    patch.setattr(Step, "publish", publish)


class Broker:
    """Keeps the messages that are published until a test delivers them, in whatever order and as often as it likes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.messages: list[tuple[Step, Message]] = []
        intercept(patch, lambda task, call: self.messages.append((task, call)))

    def publish(self, corpus: Corpus) -> None:
        """Have the relay publish all that there is to publish."""
        while work.publish_next(corpus.id):
            pass

    def deliver(self, place: int = 0, *, keep: bool = False) -> None:
        """Run the task of a message; what it publishes is kept, too."""
        task, call = self.messages[place] if keep else self.messages.pop(place)
        task.apply_async(args=[call.payload()])

    def named(self, task: str) -> list[int]:
        """The places of the messages for one task."""
        return [place for place, (step, _) in enumerate(self.messages) if step.name == task]

    def deliver_all(self, corpus: Corpus, *but: str) -> None:
        """Publish and deliver in order until there is nothing left but messages for the tasks `but`."""
        self.publish(corpus)
        while ready := [place for place, (step, _) in enumerate(self.messages) if step.name not in but]:
            self.deliver(ready[0])
            self.publish(corpus)


def version(process: Process, corpus: Corpus) -> int:
    with process.database.transaction() as connection:
        return corpora.version(connection, corpus.id)


def until_blocked(process: Process, number: int = 1) -> None:
    """Until so many transactions wait for a row or its owner."""
    waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    eventually(lambda: len(sql(process, waits)) >= number)


def sql(process: Process, statement: str, **parameters: object) -> list[tuple[object, ...]]:
    """Run a statement as in psql; return its rows, if any."""
    with process.database.transaction() as connection:
        result = connection.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def check(process: Process, corpus: Corpus, wanted: Counter[Ortho]) -> None:
    """The corpus holds each of these orthos once and nothing else, and the fsck agrees."""
    assert stored(process, corpus) == wanted
    assert verify(process, corpus, closure=True) == []
