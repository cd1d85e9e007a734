"""A corpus whose texts were read by other rules takes no more of them; its texts can be read again into a new one."""

from __future__ import annotations

import pytest

from crochet_tasks.db import corpora
from crochet_tasks.db.process import Process
from crochet_tasks.engine.text import READING
from crochet_tasks.errors import CorpusExists, ReadingRulesDiffer
from crochet_tasks.intake import admission
from crochet_tasks.operate import actions
from crochet_tasks.verify import verify
from tests.support import steps

pytestmark = pytest.mark.integration

OLD = "UPDATE corpora SET reading = '1'"


def test_a_corpus_records_how_its_texts_were_read(process: Process) -> None:
    """The reading rules and the version of Unicode."""
    assert steps.new_corpus(process).reading == READING


def test_no_text_is_added_to_what_was_read_otherwise(process: Process) -> None:
    """The error names both readings and the command that helps."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(process, OLD)
    with pytest.raises(ReadingRulesDiffer, match=f"rules 1 .* reads by {READING}.*corpora rebuild {corpus.name}"):
        admission.accept(corpus, "another", "the sea")
    assert admission.accept(corpus, "the same", steps.TEXTS[0])[1] is False


def test_an_empty_corpus_takes_the_rules_of_this_program(process: Process) -> None:
    """Nothing was read into it."""
    corpus = steps.new_corpus(process)
    steps.sql(process, OLD)
    admission.accept(corpus, "first", steps.TEXTS[0])
    with process.database.transaction() as connection:
        assert corpora.named(connection, corpus.name).reading == READING


def test_a_text_accepted_before_an_upgrade_fails(process: Process) -> None:
    """Its words would be those of other rules; the later ones of other corpora go on."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    admission.accept(corpus, "waiting", steps.TEXTS[1])
    steps.sql(process, OLD)
    with pytest.raises(ReadingRulesDiffer):
        steps.run(corpus)
    assert steps.sql(process, "SELECT state, error->>'code' FROM texts WHERE title = 'waiting'") == [
        ("failed", "reading_rules_differ")
    ]
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_a_rebuilt_corpus_has_the_closure_of_the_new_rules(process: Process) -> None:
    """The new corpus has the same texts, in the same order, and the closure of the new rules."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    steps.sql(process, OLD)
    with process.database.transaction() as connection:
        old = corpora.named(connection, corpus.name)
    assert verify(process, old, closure=True) == []
    assert actions.rebuild(process, corpus.name, "again") == len(steps.TEXTS)
    with process.database.transaction() as connection:
        again = corpora.named(connection, "again")
    steps.run(again)
    assert steps.stored(process, again) == steps.expected(steps.TEXTS)
    with pytest.raises(CorpusExists):
        actions.rebuild(process, corpus.name, "again")
