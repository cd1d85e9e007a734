"""Write a complete corpus into the store: all of it in one transaction, or nothing."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from crochet_tasks.archive.contents import Contents
from crochet_tasks.db import Connection, access, archives, batches, corpora, outbox, quotas, sessions, tally, tenants
from crochet_tasks.db.access import Entry
from crochet_tasks.db.batches import Batch, NewBatch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import Change
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import CorpusExists, TooManyCorpora

BATCHES_BYTES = 8 << 20
"""of batches that one statement writes, about"""


def load(
    process: Process,
    contents: Contents,
    tree: Tree | None,
    name: str,
    *,
    tenant: str = "default",
    entry: Entry | None = None,
) -> Corpus:
    """As `add`, in a transaction of its own. `entry` goes to the security log with it. Raises TenantUnknown, too."""
    with process.database.transaction() as connection:
        sessions.may_idle(connection)
        of = tenants.number(connection, tenant)
        corpus = add(process, connection, contents, tree, name, tenant=of)
        if entry is not None:
            access.add_log_entry(connection, entry)
        return corpus


def add(
    process: Process, connection: Connection, contents: Contents, tree: Tree | None, name: str, *, tenant: int
) -> Corpus:
    """Write the contents as a new corpus of a tenant; others see it after the commit.

    `tree`: the phrases, to find what the orthos of each batch wait on where the contents do not say.
    Raises CorpusExists, InvalidName, TenantSuspended, TooManyCorpora, QuotaReached (of texts, their bytes, or orthos),
    and what reading the contents raises.
    """
    about = contents.about
    corpora.check_name(name)
    new = Corpus(0, name, about.limits, about.version, tenant, about.description, about.budget, about.reading)
    corpus = archives.add_corpus(connection, new)
    if corpus is None:
        raise CorpusExists(corpus=name)
    for text in contents.texts():
        archives.add_text(connection, corpus.id, text, hashlib.sha256(text.body.encode()).digest())
    words = contents.words()
    for first in itertools.count(step=archives.WORDS_AT_ONCE):
        if not (some := list(itertools.islice(words, archives.WORDS_AT_ONCE))):
            break
        archives.add_words(connection, corpus.id, first, some)
    for chunk in contents.chunks():
        archives.add_chunk(connection, corpus.id, chunk)
    _batches(connection, corpus, contents, tree)
    if (proof := contents.proof()) is not None:
        archives.add_proof(connection, corpus.id, corpus.version, proof)
    # Last: from here to the commit nobody else makes a corpus for the tenant.
    most = tenants.max_corpora(connection, tenant, process.settings.max_corpora)
    if corpora.owned(connection, tenant) > most:
        raise TooManyCorpora(most=most)
    quotas.check_all(connection, tenant)
    return corpus


def _batches(connection: Connection, corpus: Corpus, contents: Contents, tree: Tree | None) -> None:
    by = uuid.uuid5(outbox.NAMESPACE, f"import of corpus {corpus.id}")
    orthos: Counter[Sides] = Counter()
    number: Counter[Sides] = Counter()
    for group in _groups(contents.batches()):
        for (born, numbering), some in itertools.groupby(group, _versions):
            new = []
            for batch in some:
                stored = batch.stored
                key = uuid.uuid5(outbox.NAMESPACE, f"{number.total()} of {by}")
                phrases = _waits(batch, tree) if batch.phrases is None else batch.phrases
                new.append(NewBatch(key, stored.sides, stored.count, stored.first, stored.last, batch.packed, phrases))
                orthos[stored.sides] += stored.count
                number[stored.sides] += 1
            batches.add(connection, corpus.id, new, by=by, born=born, numbering=numbering)
    tally.count(connection, corpus.id, {sides: Change(orthos[sides], number[sides]) for sides in orthos})


def _versions(batch: Batch) -> tuple[int, int]:
    return batch.stored.born, batch.stored.numbering


def _groups(every: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Batches that are written together."""
    group: list[Batch] = []
    size = 0
    for batch in every:
        group.append(batch)
        size += len(batch.packed)
        if size >= BATCHES_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _waits(batch: Batch, tree: Tree | None) -> bytes:
    """The lines of a batch's orthos, in its numbering."""
    assert tree is not None
    numbering = tree.numbering(batch.stored.numbering)
    rows = numbering[batches.unpacked(batch.stored, batch.packed, tree)]
    lines = runs.line_set(tree, batch.stored.sides, rows)
    return runs.pack_set(np.searchsorted(numbering, lines).astype(np.uint32))
