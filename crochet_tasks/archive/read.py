"""Read an archive of untrusted origin: every size, number and sum is checked before it is believed.

Nothing of it is unpacked to disk, and no name in it is used as a path.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, Self, TypeVar

import msgpack
from pydantic import BaseModel, ValidationError

from crochet_tasks.archive.contents import About
from crochet_tasks.archive.write import BEST, MANIFEST, ORTHOS, PHRASES, TEXTS, WORDS
from crochet_tasks.db.archives import Proof, TextBody
from crochet_tasks.db.batches import Batch, Stored
from crochet_tasks.db.verification import PhraseChunk
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.runs import height
from crochet_tasks.errors import ArchiveDamaged, ArchiveForeign, ArchiveTooNew
from crochet_tasks.intake import zips
from crochet_tasks.intake.zips import UNREADABLE
from crochet_tasks.schemas import archive as schema
from crochet_tasks.schemas.archive import (
    ArchiveManifest,
    BatchRecord,
    BestRecord,
    PhrasesRecord,
    TextRecord,
    WordRecord,
)

NAMES = {TEXTS, WORDS, PHRASES, ORTHOS, BEST, MANIFEST}
MANIFEST_BYTES = 16 << 20
"""a manifest has a line per shape, and there are thousands of these at the most"""
LINE_BYTES = 1 << 30
"""of the longest line of JSON: a text of CROCHET_MAX_TEXT_BYTES, escaped"""
RECORD_BYTES = 600 << 20
"""of the longest record of msgpack: two packed values, each of `runs.LARGEST` at the most"""
MOST_NUMBERS = 1 << 27
"""phrase ids in one batch: it is unpacked in memory"""

Model = TypeVar("Model", bound=BaseModel)


class Archive:
    """The archive in a file that can seek, called `name` in messages.

    Raises ArchiveForeign, ArchiveTooNew and ArchiveDamaged, here and in each of its iterators.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._name = PurePath(name).name or name
        self.manifest, self._zip = self._opened(file)
        corpus = self.manifest.corpus
        self.about = About(
            self._name,
            corpus.name,
            corpus.description,
            corpus.budget,
            Limits(**corpus.limits.model_dump()),
            corpus.reading,
            corpus.version,
        )

    def damaged(self, problem: str) -> ArchiveDamaged:
        return ArchiveDamaged(file=self._name, problem=problem)

    # ── the container ───────────────────────────────────────────────────────────────────────

    def _opened(self, file: IO[bytes]) -> tuple[ArchiveManifest, zipfile.ZipFile]:
        archive = zips.opened(file, 2 * len(NAMES), self._foreign)
        infos = {info.filename: info for info in archive.infolist()}
        if MANIFEST not in infos:
            raise self._foreign(f"it has no {MANIFEST}")
        try:
            with archive.open(infos[MANIFEST]) as member:
                written = member.read(MANIFEST_BYTES + 1)
        except UNREADABLE as error:
            raise self._foreign(f"it cannot be read ({error})") from error
        manifest = self._manifest(written)
        if set(infos) != NAMES or len(archive.infolist()) != len(NAMES) or set(manifest.members) != NAMES - {MANIFEST}:
            raise self.damaged(f"it should hold {', '.join(sorted(NAMES))}, each once, and nothing else")
        for name, said in manifest.members.items():
            info = infos[name]
            if info.file_size != said.bytes:
                raise self.damaged(f"{name} has {info.file_size} bytes, and {said.bytes} were written")
            if zips.is_bomb(info):
                raise self.damaged(f"{name} claims to unpack from {info.compress_size} to {info.file_size} bytes")
        return manifest, archive

    def _foreign(self, problem: str) -> ArchiveForeign:
        return ArchiveForeign(file=self._name, problem=problem)

    def _manifest(self, written: bytes) -> ArchiveManifest:
        if len(written) > MANIFEST_BYTES:
            raise self.damaged(f"{MANIFEST} has more than {MANIFEST_BYTES} bytes")
        try:
            found = json.loads(written)
            number = found.get("format") if isinstance(found, dict) else None
        except (ValueError, RecursionError):
            number = None
        if type(number) is not int:
            raise self._foreign(f"{MANIFEST} names no format")
        if number > schema.FORMAT:
            raise ArchiveTooNew(file=self._name, found=number, known=schema.FORMAT)
        try:
            return ArchiveManifest.model_validate_json(written)
        except ValidationError as error:
            raise self.damaged(f"{MANIFEST}: {_first(error)}") from error

    def _member(self, name: str) -> _Member:
        return _Member(self._zip, name, self)

    # ── its members ─────────────────────────────────────────────────────────────────────────

    def texts(self) -> Iterator[TextBody]:
        for number, line in enumerate(self._lines(TEXTS, TextRecord), 1):
            if hashlib.sha256(line.body.encode()).hexdigest() != line.sha256:
                raise self.damaged(f"line {number} of {TEXTS}: the text is not that of its checksum")
            values = line.model_dump(exclude={"sha256"})
            yield TextBody(**values)

    def words(self) -> Iterator[tuple[int, str]]:
        for line in self._lines(WORDS, WordRecord):
            yield line.born, line.word

    def chunks(self) -> Iterator[PhraseChunk]:
        for record in self._records(PHRASES, PhrasesRecord):
            yield PhraseChunk(record.first, record.count, record.born, record.parent, record.word)

    def batches(self) -> Iterator[Batch]:
        before: tuple[tuple[int, ...], str] = (), ""
        for number, record in enumerate(self._records(ORTHOS, BatchRecord), 1):
            sides = tuple(record.sides)
            if before > (sides, record.first) or list(sides) != sorted(sides):
                raise self.damaged(f"record {number} of {ORTHOS} is out of order")
            before = sides, record.first
            if record.born > record.numbering:
                raise self.damaged(f"record {number} of {ORTHOS} is born after version {record.numbering}")
            if record.count * height(sides) > MOST_NUMBERS:
                raise self.damaged(f"record {number} of {ORTHOS} claims {record.count} orthos, too many for a batch")
            stored = Stored(number, sides, record.count, record.numbering, record.first, record.last, record.born)
            yield Batch(stored, uuid.UUID(int=0), record.packed, None)

    def proof(self) -> Proof | None:
        found = [Proof(**line.model_dump()) for line in self._lines(BEST, BestRecord)]
        if len(found) > 1:
            raise self.damaged(f"{BEST} has more than one line")
        return found[0] if found else None

    def _lines(self, name: str, model: type[Model]) -> Iterator[Model]:
        with self._member(name) as member:
            while line := member.line():
                member.records += 1
                try:
                    yield model.model_validate_json(line)
                except ValidationError as error:
                    raise self.damaged(f"line {member.records} of {name}: {_first(error)}") from error

    def _records(self, name: str, model: type[Model]) -> Iterator[Model]:
        with self._member(name) as member:
            records = iter(
                msgpack.Unpacker(
                    member, raw=False, max_buffer_size=RECORD_BYTES, max_array_len=64, max_map_len=64, max_ext_len=0
                )
            )
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    return
                except (ValueError, msgpack.UnpackException, RecursionError) as error:
                    raise self.damaged(f"record {member.records + 1} of {name} cannot be read") from error
                member.records += 1
                try:
                    found = model.model_validate(record)
                except ValidationError as error:
                    raise self.damaged(f"record {member.records} of {name}: {_first(error)}") from error
                yield found


class _Member:
    """A member that is read once from its beginning; what was read is compared with the manifest at its end."""

    def __init__(self, archive: zipfile.ZipFile, name: str, of: Archive) -> None:
        self._name, self._of = name, of
        self._said = of.manifest.members[name]
        self._sum, self._size, self.records = hashlib.sha256(), 0, 0
        with self._sound():
            self._file = archive.open(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None:
            return
        said = self._said
        if (self._size, self._sum.hexdigest(), self.records) != (said.bytes, said.sha256, said.records):
            raise self._of.damaged(f"{self._name} is not what was written: its checksum differs")

    def line(self) -> bytes:
        with self._sound():
            found = self._file.readline(LINE_BYTES)
        if len(found) >= LINE_BYTES:
            raise self._of.damaged(f"line {self.records + 1} of {self._name} is longer than {LINE_BYTES} bytes")
        return self._taken(found)

    def read(self, most: int = -1) -> bytes:
        with self._sound():
            return self._taken(self._file.read(most))

    def _taken(self, part: bytes) -> bytes:
        self._sum.update(part)
        self._size += len(part)
        if self._size > self._said.bytes:
            raise self._of.damaged(f"{self._name} has more than the {self._said.bytes} bytes that were written")
        return part

    def _sound(self) -> _Sound:
        return _Sound(self._of, self._name)


class _Sound:
    """Raises ArchiveDamaged for what the zip file raises."""

    def __init__(self, of: Archive, name: str) -> None:
        self._of, self._name = of, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UNREADABLE):
            raise self._of.damaged(f"{self._name} cannot be read ({error})") from error


def _first(error: ValidationError) -> str:
    """What is wrong, without the value: it may be a whole text."""
    detail = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, detail["loc"]))
    return f"{where or 'it'}: {detail['msg']}"
