"""Merge two complete corpora: the orthos of one are kept, the texts of the other are accepted as later versions."""

from __future__ import annotations

from typing import NamedTuple

from crochet_tasks.archive.contents import About, Contents
from crochet_tasks.archive.load import add
from crochet_tasks.db import corpora, sessions, tally
from crochet_tasks.db.corpora import Corpus, CorpusFields
from crochet_tasks.db.process import Process
from crochet_tasks.engine.text import READING
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import LimitsDiffer, ReadingRulesDiffer
from crochet_tasks.intake import admission


class Source(NamedTuple):
    """One of the two. `tree`: its phrases, where its batches do not say what they wait on."""

    contents: Contents
    orthos: int
    tree: Tree | None = None


class Merged(NamedTuple):
    """What was made: of `kept` its orthos were taken over, of `accepted` so many texts are now to be read."""

    corpus: Corpus
    kept: About
    orthos: int
    accepted: About
    texts: int
    """without those that both have"""


def merge(process: Process, one: Source, other: Source, into: str, *, budget: int | None = None) -> Merged:
    """Make a corpus of the texts of two, in one transaction; its open work finds what is missing.

    Of the one with more orthos the batches are kept as they are. Each text of the other becomes a version after those,
    and a version's search finds the boxes that hold a line which is new with it: all that span both, and those of the
    other that the first has not. The closure does not depend on the order of the texts, so it is that of all of them.

    Raises LimitsDiffer, ReadingRulesDiffer (read by other rules than this program's), CorpusExists, and what reading
    the contents raises.
    """
    kept, joining = (one, other) if one.orthos >= other.orthos else (other, one)
    _check_same(one.contents.about, other.contents.about)
    with process.database.transaction() as connection:
        sessions.may_idle(connection)
        corpus = add(process, connection, kept.contents, kept.tree, into, tenant=corpora.DEFAULT_TENANT)
        description = f"{kept.contents.about.name} + {joining.contents.about.name}"
        corpus = corpora.change(connection, corpus, CorpusFields(into, description, budget))
        corpora.lock_for_acceptance(connection, corpus.id)
        texts = 0
        for text in joining.contents.texts():
            _, new = admission.accepted(connection, corpus.id, text.title, text.body)
            texts += new
        orthos = tally.total(connection, corpus.id)
    return Merged(corpus, kept.contents.about, orthos, joining.contents.about, texts)


def _check_same(one: About, other: About) -> None:
    for about in (one, other):
        if about.reading != READING:
            raise ReadingRulesDiffer(corpus=about.name, found=about.reading, needed=READING)
    if one.limits != other.limits:
        first, second = (
            ", ".join(f"{name} {value}" for name, value in each.limits._asdict().items()) for each in (one, other)
        )
        raise LimitsDiffer(first=one.source, limits=first, second=other.source, others=second)
