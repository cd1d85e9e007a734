"""Write a complete corpus of the store as an archive: a zip file, made in one go, with its manifest at the end."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgpack
from pydantic import BaseModel

from crochet_tasks.archive.contents import About, Contents
from crochet_tasks.db import Connection, archives, batches, corpora, sessions, tally
from crochet_tasks.db.archives import Proof, TextBody, Unfinished
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.verification import PhraseChunk
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import CorpusUnfinished
from crochet_tasks.schemas.archive import (
    ArchivedCorpus,
    ArchivedLimits,
    ArchivedMember,
    ArchiveManifest,
    BatchRecord,
    BestRecord,
    PhrasesRecord,
    TextRecord,
    WordRecord,
)
from crochet_tasks.settings import version

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MANIFEST, TEXTS, WORDS, PHRASES, ORTHOS, BEST = (
    *("archive.json", "texts.jsonl", "words.jsonl", "phrases.msgpack", "orthos.msgpack"),
    "best.json",
)
POLL_SECONDS = 1.0
"""between two looks at a corpus whose end is waited for"""


class StoredCorpus:
    """A complete corpus of the store, read from the snapshot of a connection."""

    def __init__(self, connection: Connection, corpus: Corpus) -> None:
        self._connection, self._corpus = connection, corpus
        limits, source = corpus.limits, f"corpus '{corpus.name}'"
        self.about = About(
            source, corpus.name, corpus.description, corpus.budget, limits, corpus.reading, corpus.version
        )

    @property
    def orthos(self) -> int:
        return tally.total(self._connection, self._corpus.id)

    def texts(self) -> Iterator[TextBody]:
        return archives.versions(self._connection, self._corpus.id)

    def words(self) -> Iterator[tuple[int, str]]:
        return archives.words(self._connection, self._corpus.id, self._corpus.version)

    def chunks(self) -> Iterator[PhraseChunk]:
        return archives.chunks(self._connection, self._corpus.id, self._corpus.version)

    def batches(self) -> Iterator[Batch]:
        return batches.every(self._connection, self._corpus.id)

    def proof(self) -> Proof | None:
        return archives.proof(self._connection, self._corpus.id, self._corpus.version)


@contextlib.contextmanager
def opened(
    process: Process, name: str, *, done: str, tenant: int = corpora.DEFAULT_TENANT, wait: float = 0.0
) -> Iterator[StoredCorpus]:
    """A complete corpus in a snapshot. Waits so many seconds for its open work, then raises CorpusUnfinished.

    `done`: what is to be done with it, such as 'archived'. Raises CorpusUnknown.
    """
    until = time.monotonic() + wait
    while True:
        with process.database.snapshot() as connection:
            corpus = corpora.named(connection, name, tenant)
            left = archives.unfinished(connection, corpus.id)
            if not any(left):
                sessions.may_idle(connection)  # the reader of the output may pause
                yield StoredCorpus(connection, corpus)
                return
        if time.monotonic() >= until or not (left.texts or left.open):
            raise _unfinished(corpus, left, done)
        time.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))


def _unfinished(corpus: Corpus, left: Unfinished, done: str) -> CorpusUnfinished:
    parts = [
        f"{number} {what}"
        for number, what in (
            (left.texts, "texts are no version yet"),
            (left.open, "pieces of work are open"),
            (left.broken, "pieces of work failed or were dropped"),
        )
        if number
    ]
    advice = (
        "retry them with 'crochet work retry'"
        if left.broken
        else f"wait until it is, with --wait SECONDS or 'crochet run --corpus {corpus.name}'; a spent budget stops it"
    )
    return CorpusUnfinished(corpus=corpus.name, what=", ".join(parts), done=done, advice=advice)


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def written(contents: Contents, *, finished: Callable[[ArchiveManifest], None] = lambda _: None) -> Iterator[bytes]:
    """The archive, in parts; memory holds one text, or one batch, of it. `finished` gets the manifest at the end."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    sink, about = _Sink(), contents.about
    members: dict[str, ArchivedMember] = {}
    orthos: Counter[str] = Counter()
    with zipfile.ZipFile(sink, "w", allowZip64=True) as archive:
        for name, records in (
            (TEXTS, map(_json, _texts(contents))),
            (WORDS, (_json(WordRecord(born=born, word=word)) for born, word in contents.words())),
            (PHRASES, map(_packed, _phrases(contents))),
            (ORTHOS, map(_packed, _batches(contents, orthos))),
            (BEST, map(_json, _best(contents))),
        ):
            # What is packed is compressed already.
            how = zipfile.ZIP_STORED if name.endswith(".msgpack") else zipfile.ZIP_DEFLATED
            summed, size, number = hashlib.sha256(), 0, 0
            with archive.open(_member(name, now, how), "w", force_zip64=True) as member:
                for record in records:
                    member.write(record)
                    summed.update(record)
                    size, number = size + len(record), number + 1
                    if sink.size >= _Sink.ENOUGH:
                        yield sink.taken()
            members[name] = ArchivedMember(bytes=size, sha256=summed.hexdigest(), records=number)
        manifest = ArchiveManifest(
            crochet=version(),
            created_at=now,
            corpus=ArchivedCorpus(
                name=about.name,
                description=about.description,
                budget=about.budget,
                limits=ArchivedLimits(**about.limits._asdict()),
                reading=about.reading,
                version=about.version,
            ),
            orthos=dict(orthos),
            members=members,
        )
        archive.writestr(
            _member(MANIFEST, now, zipfile.ZIP_DEFLATED), manifest.model_dump_json(indent=1).encode() + b"\n"
        )
    finished(manifest)
    yield sink.taken()


def _member(name: str, now: dt.datetime, how: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, now.timetuple()[:6])
    info.compress_type, info.external_attr = how, 0o600 << 16
    return info


class _Sink(io.RawIOBase):
    """What the zip file is written to: it cannot seek, so all is written once and in order."""

    ENOUGH = 1 << 20
    """bytes that are passed on at once"""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, part: ReadableBuffer, /) -> int:
        self._parts.append(bytes(part))
        self.size += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts, self.size = self._parts, [], 0
        return b"".join(parts)


def _json(record: BaseModel) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def _packed(record: BaseModel) -> bytes:
    packed: bytes = msgpack.packb(record.model_dump())
    return packed


def _texts(contents: Contents) -> Iterator[TextRecord]:
    for text in contents.texts():
        yield TextRecord(**text._asdict(), sha256=hashlib.sha256(text.body.encode()).hexdigest())


def _phrases(contents: Contents) -> Iterator[PhrasesRecord]:
    for chunk in contents.chunks():
        yield PhrasesRecord(first=chunk.first, count=chunk.size, born=chunk.born, parent=chunk.parent, word=chunk.word)


def _batches(contents: Contents, orthos: Counter[str]) -> Iterator[BatchRecord]:
    for batch in contents.batches():
        stored = batch.stored
        orthos[shape_name(stored.sides)] += stored.count
        yield BatchRecord(
            sides=list(stored.sides),
            count=stored.count,
            numbering=stored.numbering,
            born=stored.born,
            first=stored.first,
            last=stored.last,
            packed=batch.packed,
        )


def _best(contents: Contents) -> Iterable[BestRecord]:
    proof = contents.proof()
    return [] if proof is None else [BestRecord(**proof._asdict())]
