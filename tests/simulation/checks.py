"""What must hold at the end of a run, when nothing is open, and what a reader must see on the way.

The expected values come from the oracle and from the answers that clients received, never from the program.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from crochet_tasks.db import batches, corpora
from crochet_tasks.db.process import Process
from crochet_tasks.engine import runs
from crochet_tasks.errors import CrochetError
from crochet_tasks.verify import verify
from tests.simulation.corpora import POISONED, WORDLESS, expected
from tests.simulation.store import WRITTEN
from tests.support import history, oracle, steps
from tests.support.history import Change
from tests.support.oracle import Ortho, Phrase

if TYPE_CHECKING:
    from tests.simulation.clients import Planned
    from tests.simulation.world import World

INJECTED = {
    *("database_conflict", "database_unavailable", "broker_unavailable"),
    *("worker_lost", "message_died", "text_without_words"),
}
"""codes of the errors that a run injects; any other one, but for the bug of the poisoned text, is a finding"""


def injected(error: BaseException) -> None:
    """Raise AssertionError where a task failed with an error that the run did not inject."""
    known = isinstance(error, CrochetError) and error.code in INJECTED
    assert known or type(error).__name__ == "Poison", f"an error that was not injected: {error!r}"


class Reader:
    """Reads versions and counts at every step: what a client has read never goes back."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[int, int]] = {}

    def read(self, world: World) -> None:
        """Move the clock a little, and read everything."""
        world.store.now += STEP_SECONDS
        for number, version, orthos, _ in world.store.rows(_READ, round(world.store.now * 1_000_000)):
            if number is None or number in world.deleted:
                continue
            before = self._read.get(number, (0, 0))
            assert version >= before[0], f"corpus {number} was at version {before[0]}, and is at {version}"
            assert orthos >= before[1], f"corpus {number} had {before[1]} orthos, and has {orthos}"
            self._read[number] = (version, int(orthos))


STEP_SECONDS = 0.05
# One query: it runs at every step.
_READ = """
SELECT id, version, (SELECT coalesce(sum(orthos), 0) FROM counts WHERE corpus = id), clock.now
  FROM (SELECT setval('sim.clock', %s) AS now) AS clock LEFT JOIN corpora ON true
"""


def everything(world: World) -> None:
    """Raise AssertionError where something is not as it must be."""
    process = world.bench.machine("c0", 0).process
    there = {number for (number,) in world.store.rows("SELECT id FROM corpora")}
    assert set(world.ids) - world.deleted <= there, "a corpus is gone that was not deleted"
    for number, planned in world.ids.items():
        if number in there:
            _corpus(world, process, number, planned)
        else:
            _gone(world, number)
    rows = world.store.rows("SELECT subject, before, after FROM audit ORDER BY id")
    kinds = dict(world.store.rows("SELECT 'work ' || id, kind FROM work"))
    states = "SELECT 'work ' || id, state FROM work UNION ALL SELECT 'text ' || id, state FROM texts"
    history.paths([Change(*row) for row in rows], kinds, dict(world.store.rows(states)))
    _attempts(world)
    assert not world.network.dead


def _corpus(world: World, process: Process, number: int, planned: Planned) -> None:
    texts = world.store.rows("SELECT id, body, state, version FROM texts WHERE corpus = %s ORDER BY seq", number)
    accepted = {name: post for name, post in world.acknowledged.items() if post.corpus == planned}
    states = {f"text-{text}": (body, state) for text, body, state, _ in texts}
    for name, post in accepted.items():
        assert states[name][0] == post.body, f"{name} was accepted and is lost"
    for name, (body, state) in states.items():
        wanted = {"failed"} if body in (WORDLESS, POISONED) else {"current"}
        withdrawn = name in world.withdrawn or number in world.emptied
        assert state in (wanted | {"cancelled"} if withdrawn else wanted), f"{name} is {state}"
    versions = [version for *_, state, version in texts if state == "current"]
    assert versions == list(range(1, len(versions) + 1)), f"texts became versions out of order: {versions}"

    wanted_orthos = expected(frozenset(body for _, body, state, _ in texts if state == "current"), planned.limits)
    with process.database.transaction() as connection:
        corpus = corpora.numbered(connection, number)
    stored = steps.stored(process, corpus)
    missing, extra = wanted_orthos - stored, stored - wanted_orthos
    assert not missing, f"corpus {number} lacks {list(missing)[:3]}, {missing.total()} in all"
    assert not extra, f"corpus {number} has {list(extra)[:3]} too often or wrongly, {extra.total()} in all"
    _remediations(process, number)
    _counters(world, number, stored)
    current = {version: body for _, body, state, version in texts if state == "current"}
    world.best.check(process, number, current, planned.limits)
    problems = verify(process, corpus, closure=False)
    assert problems == [], problems


def _remediations(process: Process, number: int) -> None:
    """Each batch waits on the lines of its orthos, as the oracle reads them, and on nothing else."""
    with process.database.snapshot() as connection:
        tree = process.tree(connection, number, corpora.version(connection, number))
        for batch in batches.every(connection, number):
            lines: set[Phrase] = {
                line for sides, words in steps.decoded(tree, batch) for line in oracle.lines(sides, words)
            }
            assert batch.phrases is not None, "a batch has no remediation"
            numbering = tree.numbering(batch.stored.numbering)
            ids = numbering[runs.unpack_set(batch.phrases, len(numbering))]
            waited = {tuple(tree.phrase(int(phrase))) for phrase in ids}
            assert waited == lines, f"batch {batch.stored.id} waits on other phrases than its lines: {waited ^ lines}"


def _counters(world: World, number: int, stored: Counter[Ortho]) -> None:
    by_shape: Counter[tuple[int, ...]] = Counter()
    for (sides, _), times in stored.items():
        by_shape[sides] += times
    counted = world.store.rows("SELECT sides, orthos, batches FROM counts WHERE corpus = %s", number)
    assert {tuple(sides): orthos for sides, orthos, _ in counted if orthos} == by_shape, "the counters are wrong"
    cut = dict(world.store.rows("SELECT sides::text, count(*) FROM batches WHERE corpus = %s GROUP BY 1", number))
    assert {f"{{{','.join(map(str, sides))}}}": each for sides, _, each in counted if each} == cut, "counted batches"
    (found,) = world.store.rows("SELECT coalesce(sum(found), 0) FROM work WHERE corpus = %s", number)[0]
    assert found == stored.total(), f"searches say that they found {found}, and {stored.total()} are stored"


def _gone(world: World, number: int) -> None:
    """Nothing of a deleted corpus is left."""
    for table in set(WRITTEN) - {"corpora", "audit", "best_faces", "dead_letters", "remediations"}:
        left = world.store.rows(f"SELECT count(*) FROM {table} WHERE corpus = %s", number)
        assert left == [(0,)], f"{left[0][0]} rows of {table} are left of the deleted corpus {number}"


def _attempts(world: World) -> None:
    """Attempts are numbered without a gap, up to the most; their errors are those that the run injected."""
    most, last = world.settings.max_attempts, Counter[str]()
    for item, number, error in world.store.rows("SELECT work::text, number, error FROM attempts ORDER BY id"):
        assert error["code"] in INJECTED or error["type"] == "Poison", f"an error that was not injected: {error}"
        assert number in (last[item] + 1, 1), f"attempt {number} of {item} follows on {last[item]}"
        assert number <= most, f"attempt {number} of {item}, and {most} are the most"
        last[item] = number
