"""One file at a place, such as an archive: `folder/x.crochet` or `s3://bucket/x.crochet`, encrypted or not."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, cast

from crochet_tasks.errors import BackupKeyWrong, FileExists, FileUnknown
from crochet_tasks.recovery import encryption
from crochet_tasks.recovery.places import Place, Reader

if TYPE_CHECKING:
    from pyrage.x25519 import Identity, Recipient

ENCRYPTED = b"age-encryption.org/"
"""what a file begins with that `age` has encrypted"""


def write(address: str, parts: Iterable[bytes], recipient: Recipient | None = None, *, overwrite: bool = False) -> int:
    """Write a whole file or none, encrypted for `recipient`; how many bytes went into it. Raises FileExists."""
    place, name = _split(address)
    if not overwrite and place.has(name):
        raise FileExists(file=address)
    with place.writer(name) as target:
        source = _Parts(parts)
        if recipient is None:
            while part := source.read():
                target.write(part)
        else:
            encryption.encrypt(source, target, recipient)
    return source.size


@contextlib.contextmanager
def opened(address: str, keys: list[Identity] | None = None) -> Iterator[IO[bytes]]:
    """A file to read and to seek in; an encrypted one is decrypted into a temporary file.

    Raises FileUnknown, BackupKeyWrong and BackupPlaceUnusable.
    """
    place, name = _split(address)
    if not place.has(name):
        raise FileUnknown(file=address)
    source = place.reader(name)
    if source.read(len(ENCRYPTED)) != ENCRYPTED:
        yield cast(IO[bytes], source)
        return
    if not keys:
        raise BackupKeyWrong(reason=f"{name} is encrypted: give the file of its key with --identity")
    with tempfile.TemporaryFile() as file:
        source.seek(0)
        encryption.decrypt(cast(Reader, source), file, keys)
        yield file


def _split(address: str) -> tuple[Place, str]:
    folder, slash, name = address.rpartition("/")
    return Place((folder or slash) if slash else "."), name


class _Parts:
    """Parts of a file, read one at a time."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts, self._rest, self.size = iter(parts), b"", 0

    def read(self, most: int = -1, /) -> bytes:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return b""
            self._rest, self.size = part, self.size + len(part)
        taken = self._rest if most < 0 else self._rest[:most]
        self._rest = self._rest[len(taken) :]
        return taken
