"""Two corpora become one: the closure of all their texts, with the orthos of the larger one kept as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from crochet_tasks import archive
from crochet_tasks.archive import Source
from crochet_tasks.archive.merge import Merged
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import CorpusExists, CorpusUnfinished, LimitsDiffer, ReadingRulesDiffer
from crochet_tasks.query.export import Format, export
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.archives import archive_of, archived

pytestmark = pytest.mark.integration

FOUND = "SELECT coalesce(sum(found), 0)::int FROM work WHERE corpus = :c"


def played(process: Process, texts: Sequence[str], max_axes: int = 3) -> Corpus:
    corpus = steps.new_corpus(process, Limits(max_axes))
    steps.ingest_all(corpus, texts)
    return corpus


def merged(process: Process, one: Corpus, other: Corpus, into: str) -> Merged:
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(source(process, each)) for each in (one, other))
        return archive.merge(process, first, second, into)


@contextlib.contextmanager
def source(process: Process, corpus: Corpus) -> Iterator[Source]:
    with archive.opened(process, corpus.name, done="merged") as contents:
        yield Source(contents, contents.orthos)


def ids(process: Process, corpus: Corpus) -> set[bytes]:
    """What is exported, without the version that brought it: that depends on the order of the texts."""
    lines = b"".join(export(process, corpus.name, Format.JSONL)).splitlines()
    return {line.partition(b',"born"')[0] for line in lines}


@pytest.mark.parametrize("swapped", [False, True])
def test_it_is_the_closure_of_all_texts(process: Process, *, swapped: bool) -> None:
    """Whichever is named first: the larger one's orthos are kept, and only what is missing is found."""
    larger, smaller = played(process, steps.TEXTS[:2]), played(process, steps.TEXTS[2:])
    there = steps.stored(process, larger).total()
    assert there > steps.stored(process, smaller).total()
    pair = (smaller, larger) if swapped else (larger, smaller)
    made = merged(process, *pair, f"{larger.name}-{swapped}")
    assert (made.kept.name, made.orthos, made.accepted.name, made.texts) == (larger.name, there, smaller.name, 1)
    steps.run(made.corpus)
    expected = steps.expected(steps.TEXTS)
    assert steps.stored(process, made.corpus) == expected
    assert steps.sql(process, FOUND, c=made.corpus.id) == [(expected.total() - there,)]
    assert verify(process, made.corpus, closure=True) == []
    assert ids(process, made.corpus) == ids(process, played(process, steps.TEXTS))


def test_texts_that_both_have_are_read_once(process: Process) -> None:
    one, other = played(process, steps.TEXTS[:2]), played(process, steps.TEXTS[1:2])
    made = merged(process, one, other, f"{one.name}-merged")
    assert (made.texts, steps.run(made.corpus)) == (0, [])
    assert steps.stored(process, made.corpus) == steps.expected(steps.TEXTS[:2])


def test_archives_merge_as_corpora_do(process: Process) -> None:
    sources = []
    for texts in (steps.TEXTS[:1], steps.TEXTS[1:]):
        checked = archive.check(archive_of(archived(texts)))
        sources.append(Source(checked.archive, checked.archive.manifest.total, checked.context.tree))
    made = archive.merge(process, sources[0], sources[1], "of-archives")
    steps.run(made.corpus)
    assert steps.stored(process, made.corpus) == steps.expected(steps.TEXTS)
    assert verify(process, made.corpus, closure=True) == []


def test_what_does_not_go_together_is_refused(process: Process) -> None:
    """Other limits, other reading rules, open work, a name that is taken; and nothing is made."""
    one, other = played(process, steps.TEXTS[:1]), played(process, steps.TEXTS[1:2], 2)
    before = steps.sql(process, "SELECT count(*) FROM corpora")
    with pytest.raises(LimitsDiffer, match=r"max_axes 3.*max_axes 2"):
        merged(process, one, other, "refused")
    with pytest.raises(CorpusExists):
        merged(process, one, one, one.name)
    steps.sql(process, "UPDATE corpora SET reading = '1' WHERE id = :c", c=other.id)
    with pytest.raises(ReadingRulesDiffer):
        merged(process, one, other, "refused")
    steps.accept(one, steps.TEXTS[2])
    with pytest.raises(CorpusUnfinished, match="only a complete one is merged"):
        merged(process, one, one, "refused")
    assert steps.sql(process, "SELECT count(*) FROM corpora") == before
