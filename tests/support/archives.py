"""Archives in memory, made without the store: by the closure of tests/support/closures.py."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence

from crochet_tasks.archive import Archive, written
from crochet_tasks.archive.contents import About
from crochet_tasks.archive.write import MANIFEST
from crochet_tasks.broker.messages import FoundBatch
from crochet_tasks.db.archives import Proof, TextBody
from crochet_tasks.db.batches import Batch, Stored
from crochet_tasks.db.verification import PhraseChunk
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.text import READING, sentences
from crochet_tasks.engine.tree import Tree
from tests.support.closures import closed, indexes

NOW = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


class MadeCorpus:
    """The complete corpus of some texts, each of which is a version."""

    def __init__(self, texts: Sequence[str], name: str = "made") -> None:
        limits = Limits()
        self.about = About("made", name, "made by a test", None, limits, READING, len(texts))
        self._texts, self._closure = texts, closed(texts, limits)
        self._indexes = indexes(texts, limits.max_side)

    def texts(self) -> Iterator[TextBody]:
        for version, body in enumerate(self._texts, 1):
            nodes = self._indexes[version].limits[version]
            yield TextBody(version, body[:20], len(sentences(body)), nodes, NOW, NOW, body)

    def words(self) -> Iterator[tuple[int, str]]:
        known = 0
        for version, index in enumerate(self._indexes):
            yield from ((version, word) for word in index.vocabulary[known:])
            known = len(index.vocabulary)

    def chunks(self) -> Iterator[PhraseChunk]:
        for version, index in enumerate(self._indexes[1:], 1):
            new = slice(*index.limits[version - 1 : version + 1])
            if new.start < new.stop:
                parent, word = (runs.pack_numbers(numbers[new]) for numbers in (index.parent, index.word))
                yield PhraseChunk(new.start, new.stop - new.start, version, parent, word)

    def batches(self) -> Iterator[Batch]:
        every = [
            (one, found.version)
            for found in self._closure.found
            for one in FoundBatch.cut(Tree.of(self._indexes[-1], found.version), [found.run], 100)
        ]
        every.sort(key=lambda each: (each[0].sides, each[0].first))
        for number, (one, version) in enumerate(every, 1):
            stored = Stored(number, one.sides, one.count, version, one.first, one.last, version)
            yield Batch(stored, uuid.UUID(int=number), one.packed, one.phrases)

    def proof(self) -> Proof | None:
        return None


def archived(texts: Sequence[str]) -> bytes:
    """The archive of the complete corpus of some texts."""
    return b"".join(written(MadeCorpus(texts)))


def archive_of(made: bytes) -> Archive:
    return Archive(io.BytesIO(made), "x.crochet")


Members = dict[str, bytes]


def members(made: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(contents: Members, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return target.getvalue()


def altered(made: bytes, change: Callable[[Members], object], *, agreeing: bool) -> bytes:
    """The archive with other members; `agreeing`: its manifest says the same of their sizes and sums."""
    contents = members(made)
    change(contents)
    if agreeing:
        said = json.loads(contents[MANIFEST])
        for name, before in said["members"].items():
            content = contents[name]
            records = before["records"] if name.endswith("msgpack") else content.count(b"\n")
            digest = hashlib.sha256(content).hexdigest()
            said["members"][name] = {"bytes": len(content), "sha256": digest, "records": records}
        contents[MANIFEST] = json.dumps(said).encode()
    return zipped(contents)
