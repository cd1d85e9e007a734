"""Windows and remediations: what a version makes due, and that nothing else needs to be searched."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from crochet_tasks import remediations
from crochet_tasks.db import batches, windows
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import runs, search
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import oracle, steps
from tests.support.oracle import Ortho, Phrase
from tests.support.steps import TEXTS, Broker, check, sizes, ways

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are cut into parts of a few starts, and a search leaves over what it lengthens next."""
    steps.cut_small(monkeypatch)


def contents(process: Process, corpus: Corpus) -> list[tuple[int, set[Ortho], set[Phrase]]]:
    """Of every batch its version, its orthos and the phrases that it waits on, in words."""
    with process.database.snapshot() as connection:
        tree = process.tree(connection, corpus.id, steps.version(process, corpus))
        found = []
        for batch in batches.every(connection, corpus.id):
            numbering = tree.numbering(batch.stored.numbering)
            assert batch.phrases is not None
            waits = numbering[runs.unpack_set(batch.phrases, len(numbering))]
            phrases = {tree.phrase(int(phrase)) for phrase in waits}
            found.append((batch.stored.born, set(steps.decoded(tree, batch)), phrases))
        return found


def due(process: Process, corpus: Corpus, version: int) -> set[Phrase]:
    """The due phrases that a window records."""
    with process.database.snapshot() as connection:
        packed = windows.read(connection, corpus.id, version).due
        assert packed is not None
        tree = process.tree(connection, corpus.id, version)
        return {tree.phrase(int(phrase)) for phrase in runs.unpack_set(packed, tree.size)}


def lines(orthos: set[Ortho]) -> set[Phrase]:
    return {line for ortho in orthos for line in oracle.lines(*ortho)}


@sizes
@ways
def test_remediations_are_what_batches_hold(
    database: str, sizes: dict[str, int], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch waits on the lines of its orthos, all of them and no others, along every axis."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", share)
    with open_process(Settings.load(**sizes), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, TEXTS)
        found = contents(process, corpus)
        assert found
        assert [waits for _, _, waits in found] == [lines(orthos) for _, orthos, _ in found]


@ways
@pytest.mark.parametrize("at_once", [False, True])
def test_windows_share_out_the_closure(
    process: Process, share: float, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows follow on each other up to the last version; each finds what is new in it; texts at once share one."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", share)
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, TEXTS, at_once=at_once)
    with process.database.snapshot() as connection:
        edges = [(window.since, window.version) for window in windows.every(connection, corpus.id)]
    assert edges == ([(0, 3)] if at_once else [(0, 1), (1, 2), (2, 3)])
    born = oracle.closure(TEXTS)
    window_of = {version: last for first, last in edges for version in range(first + 1, last + 1)}
    for version, found, _ in contents(process, corpus):
        assert {window_of[born[ortho]] for ortho in found} == {version}


def test_due_is_what_stored_orthos_wait_for(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """New pairs, and new phrases that continue a line of a stored ortho, or a due phrase: these and no others."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    corpus = steps.new_corpus(process)
    texts = [f"{TEXTS[0]}, p q", f"{TEXTS[1]}, p q r", TEXTS[2]]  # nothing waits on "p q"
    born = oracle.phrases(texts, corpus.limits.max_side)
    left_out = set()
    for version, body in enumerate(texts, start=1):
        steps.ingest_all(corpus, [body])
        waited = lines(set(oracle.closure(texts[: version - 1])))
        new = {phrase for phrase, birth in born.items() if birth == version and len(phrase) > 1}
        wanted: set[Phrase] = set()
        for phrase in sorted(new, key=len):
            if len(phrase) == 2 or phrase[:-1] in waited | wanted:
                wanted.add(phrase)
        assert due(process, corpus, version) == wanted
        left_out |= new - wanted
    assert ("p", "q", "r") in left_out  # the remediations spare something
    check(process, corpus, steps.expected(texts))


def test_while_searches_are_open_every_new_phrase_is_due(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the store does not hold all that waits; what is found is the same."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
    for body in TEXTS:
        steps.accept(corpus, body)
        broker.deliver_all(corpus, "search.part")
    born = oracle.phrases(TEXTS, corpus.limits.max_side)
    for version in (2, 3):
        new = {phrase for phrase, birth in born.items() if birth == version and len(phrase) > 1}
        assert due(process, corpus, version) == new
    broker.deliver_all(corpus)
    check(process, corpus, steps.expected(TEXTS))


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_a_lost_search_would_have_found_misses_nothing_else(
    process: Process, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version finds all that is new in it although older orthos are missing; retried, the closure is exact."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
    steps.accept(corpus, TEXTS[0])
    broker.deliver_all(corpus, "search.part")
    lost = (
        "UPDATE work SET state = :state, error = '{}', published_at = NULL, finished_at = now() WHERE kind = 'search'"
    )
    steps.sql(process, lost, state=state)
    broker.messages.clear()
    for body in TEXTS[1:]:
        steps.accept(corpus, body)
        broker.deliver_all(corpus)
    assert steps.stored(process, corpus) == Counter(o for o, birth in oracle.closure(TEXTS).items() if birth > 1)
    steps.sql(process, "UPDATE work SET state = 'open', finished_at = NULL WHERE state = :state", state=state)
    broker.deliver_all(corpus)
    check(process, corpus, steps.expected(TEXTS))


def test_without_remediations_orthos_are_missed(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remediations are needed: where they are left out, orthos are missing, and the fsck says so."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    monkeypatch.setattr(
        Process, "waited", lambda _self, _connection, _corpus, tree, *_: np.zeros(tree.size + 1, np.bool_)
    )
    corpus = steps.new_corpus(process)
    texts = ["a b, b c, d e f, a d, b e, c f", "a b c"]
    steps.ingest_all(corpus, texts)
    assert steps.stored(process, corpus) < steps.expected(texts)
    problems = verify(process, corpus, closure=True)
    assert any("missing: " in problem for problem in problems)


def test_remediations_that_take_long_to_read(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all are read every new phrase is due, and no version waits; a process goes on where it ended."""
    monkeypatch.setattr(remediations, "READ_SECONDS", -1.0)
    read = []
    with open_process(Settings(batch_orthos=2), database) as process:
        corpus = steps.new_corpus(process)
        for body in TEXTS:
            steps.accept(corpus, body)
            kinds = Counter(item.kind for item in steps.run(corpus))
            assert kinds["remediations"] == 1
            read.append(process.waits.get(corpus.id))
        first, second = (each.last for each in read[1:] if each is not None)
        assert first < second < max(batch for batch, _, _ in contents(process, corpus))
        check(process, corpus, steps.expected(TEXTS))
