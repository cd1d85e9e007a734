"""What is archived and imported is the same corpus: it can be read, verified, and takes further texts."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from crochet_tasks import archive
from crochet_tasks.access import tenants as managed
from crochet_tasks.archive import Archive, Checked
from crochet_tasks.archive.contents import Contents
from crochet_tasks.db import corpora, tenants
from crochet_tasks.db.access import Entry
from crochet_tasks.db.archives import TextBody
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.errors import (
    CorpusExists,
    CorpusUnfinished,
    CorpusUnknown,
    QuotaReached,
    ReadingRulesDiffer,
    TenantUnknown,
    TooManyCorpora,
)
from crochet_tasks.operate import cancelling
from crochet_tasks.query.export import Format, export
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.archives import MadeCorpus, archive_of, archived
from tests.support.best import ANY, ask, read

pytestmark = pytest.mark.integration

COUNTS = "SELECT (SELECT count(*) FROM corpora), (SELECT count(*) FROM texts), (SELECT count(*) FROM batches)"


def made(process: Process, corpus: Corpus) -> Checked:
    """The archive of a corpus, checked."""
    with archive.opened(process, corpus.name, done="archived") as contents:
        whole = b"".join(archive.written(contents))
    return archive.check(Archive(io.BytesIO(whole), "x.crochet"))


def imported(process: Process, checked: Checked, name: str, tenant: str = "default") -> Corpus:
    return archive.load(process, checked.archive, checked.context.tree, name, tenant=tenant)


def exported(process: Process, corpus: Corpus) -> bytes:
    return b"".join(export(process, corpus.name, Format.JSONL))


def test_after_an_import_further_texts_bring_what_they_would_have_brought(process: Process) -> None:
    """Archived after the second text, imported, and brought forward by the third: all three at once, ids and all."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:2])
    before = exported(process, corpus)
    copy = imported(process, made(process, corpus), f"{corpus.name}-copy")
    assert exported(process, copy) == before
    assert verify(process, copy, closure=True) == []
    for each in (corpus, copy):
        steps.ingest_all(each, [steps.TEXTS[1], steps.TEXTS[2]])  # the second one it has already
    assert exported(process, copy) == exported(process, corpus)
    assert steps.stored(process, copy) == steps.expected(steps.TEXTS)
    assert verify(process, copy, closure=True) == []


def test_an_archive_of_an_import_is_the_same(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    first = made(process, corpus)
    second = made(process, imported(process, first, f"{corpus.name}-copy"))
    assert second.archive.manifest.members == first.archive.manifest.members


def test_batches_of_older_versions_keep_what_they_wait_on(process: Process) -> None:
    """What is imported waits on the same lines as what was archived."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    copy = imported(process, made(process, corpus), f"{corpus.name}-copy")
    waiting = "SELECT sides, first, numbering, born, packed, phrases FROM batches JOIN remediations ON batch = id"
    one, other = (
        steps.sql(process, f"{waiting} WHERE corpus = :c ORDER BY sides, first, numbering", c=each.id)
        for each in (corpus, copy)
    )
    assert one == other


def test_another_tenants_corpus(process: Process) -> None:
    """It is seen by that tenant only, and its import is in the security log."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    checked = made(process, corpus)
    with pytest.raises(TenantUnknown):
        imported(process, checked, "theirs", tenant="not-there")
    tenant = f"tenant-of-{corpus.name}"
    managed.add(process.database, tenant, Entry("tenant.created"))
    copy = imported(process, checked, corpus.name, tenant=tenant)
    with process.database.snapshot() as connection:
        assert corpora.named(connection, corpus.name).id == corpus.id
        assert corpora.named(connection, corpus.name, tenants.number(connection, tenant)).id == copy.id


def test_the_proof_of_the_best_comes_along(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    job = ask(process, corpus)
    steps.run(corpus)
    before = read(process, corpus, job.id)
    copy = imported(process, made(process, corpus), f"{corpus.name}-copy")
    after = ask(process, copy, ANY)
    assert (after.state, after.version, after.best, after.found) == ("proven", 3, before.best, before.found)
    assert steps.run(copy) == []


def test_a_corpus_that_is_not_complete_is_refused(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.accept(corpus, steps.TEXTS[0])
    with pytest.raises(CorpusUnfinished, match=r"1 texts are no version yet, 1 pieces of work are open.*--wait"):
        made(process, corpus)
    steps.run(corpus)
    steps.sql(process, "UPDATE work SET state = 'cancelled' WHERE corpus = :c AND kind = 'search'", c=corpus.id)
    with pytest.raises(CorpusUnfinished, match=r"failed or were dropped.*crochet work retry"):
        made(process, corpus)
    with pytest.raises(CorpusUnknown):
        made(process, corpus._replace(name="not-there"))


def test_open_work_is_waited_for(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others do it meanwhile; each look is a snapshot of its own."""
    monkeypatch.setattr("crochet_tasks.archive.write.POLL_SECONDS", 0.01)
    corpus = steps.new_corpus(process)
    steps.accept(corpus, steps.TEXTS[0])
    worker = threading.Thread(target=steps.run, args=[corpus])
    worker.start()
    with archive.opened(process, corpus.name, done="archived", wait=300) as contents:
        assert contents.about.version == 1
    worker.join()


def test_all_of_it_or_nothing(process: Process) -> None:
    """An import that fails in the middle, or whose name is taken, leaves nothing."""

    class Broken(MadeCorpus):
        def texts(self) -> Iterator[TextBody]:
            yield from super().texts()
            raise RuntimeError("the disk it is read from is gone")

    corpus = steps.new_corpus(process)
    before = steps.sql(process, COUNTS)
    contents: Contents = Broken(steps.TEXTS)
    with pytest.raises(RuntimeError):
        archive.load(process, contents, None, "broken")
    with pytest.raises(CorpusExists):
        archive.load(process, MadeCorpus(steps.TEXTS), None, corpus.name)
    assert steps.sql(process, COUNTS) == before


def test_a_tenant_has_no_more_corpora_by_it(database: str) -> None:
    with open_process(Settings(max_corpora=1), database) as process:
        steps.new_corpus(process)
        with pytest.raises(TooManyCorpora):
            archive.load(process, MadeCorpus(steps.TEXTS[:1]), None, "one-more")


@pytest.mark.parametrize(("quota", "what"), [("max_texts", "texts"), ("max_bytes", "bytes"), ("max_orthos", "orthos")])
def test_a_tenants_quotas_hold_for_imports_and_merges(process: Process, quota: str, what: str) -> None:
    """What is one too many is refused as a whole; with room for it, it comes in."""
    made = MadeCorpus(steps.TEXTS)
    archive.load(process, made, None, "first")
    steps.sql(process, "UPDATE corpora SET removed_at = now()")
    held = {
        "max_texts": len(steps.TEXTS),
        "max_bytes": sum(len(body.encode()) for body in steps.TEXTS),
        "max_orthos": steps.expected(steps.TEXTS).total(),
    }[quota]
    steps.sql(process, f"UPDATE tenants SET {quota} = :most", most=held - 1)
    before = steps.sql(process, COUNTS)
    with pytest.raises(QuotaReached, match=what):
        archive.load(process, made, None, "second")
    assert steps.sql(process, COUNTS) == before
    steps.sql(process, f"UPDATE tenants SET {quota} = :most", most=held)
    archive.load(process, made, None, "second")
    if quota == "max_texts":
        with pytest.raises(QuotaReached, match=what):
            archive.merge(process, archive.Source(made, 1), archive.Source(MadeCorpus(["the land"]), 0), "third")


def test_what_was_made_elsewhere_is_imported(process: Process) -> None:
    """An archive that no store has written: contents are all that counts."""
    checked = archive.check(archive_of(archived(steps.TEXTS)))
    corpus = imported(process, checked, steps.new_corpus(process).name + "-made")
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
    assert verify(process, corpus, closure=True) == []


def test_a_corpus_that_other_rules_have_read_stays_one(process: Process) -> None:
    """Its phrases cannot be compared with today's reading of its texts, and it takes no more of them."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(process, "UPDATE corpora SET reading = '1' WHERE id = :c", c=corpus.id)
    copy = imported(process, made(process, corpus), f"{corpus.name}-copy")
    assert copy.reading == "1"
    with pytest.raises(ReadingRulesDiffer):
        steps.accept(copy, steps.TEXTS[1])


def test_a_text_that_is_no_version_stays_behind(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.accept(corpus, steps.TEXTS[1])
    waiting = steps.sql(process, "SELECT id FROM texts WHERE corpus = :c AND state = 'accepted'", c=corpus.id)
    cancelling.cancel(process, [f"text-{number}" for (number,) in waiting])
    copy = imported(process, made(process, corpus), f"{corpus.name}-copy")
    assert steps.sql(process, "SELECT seq, state FROM texts WHERE corpus = :c", c=copy.id) == [(1, "current")]
