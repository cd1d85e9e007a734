"""Where backups are kept: a folder, or an object store (S3 and what speaks like it, Google, Azure), by obstore.

PLACE/20261129T101502.125Z/database.dump   or database.dump.age
                       backup.json     written last: without it a backup is not complete
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from crochet_tasks.errors import BackupDamaged, BackupPlaceUnusable, BackupUnknown
from crochet_tasks.schemas.recovery import Manifest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MANIFEST = "backup.json"
STORES = "s3://", "gs://", "az://"
NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
PART_BYTES = 32 << 20
"""of an upload; S3 takes at most 10,000 parts, so a dump of up to 320 GB"""


class Writer(Protocol):
    def write(self, value: bytes, /) -> int: ...

    def flush(self) -> None: ...


class Reader(Protocol):
    def read(self, most: int = ..., /) -> bytes: ...


class SeekableReader(Reader, Protocol):
    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def tell(self) -> int: ...


class Place:
    """A folder, which is made when something is written, or the address of an object store.

    Credentials and options of an object store are those of its own tools, such as AWS_ACCESS_KEY_ID and
    AWS_ENDPOINT_URL. What goes wrong is a BackupPlaceUnusable.
    """

    def __init__(self, address: str) -> None:
        from obstore import store

        self.address = address
        self._folder = None if "://" in address else Path(address).absolute()
        self._opened: ObjectStore | None = None
        with _usable(address):
            if self._folder is not None:
                self._exists()
            elif address.startswith(STORES):
                self._opened = store.from_url(address)
            else:  # the library knows more, such as memory://, where a backup is lost at once
                raise ValueError(f"it is neither a folder nor an address with one of {', '.join(STORES)}")

    @property
    def _store(self) -> ObjectStore:
        from obstore import store

        if self._opened is None:
            with _usable(self.address):
                self._opened = store.LocalStore(self._folder)
        return self._opened

    def _exists(self) -> bool:
        """Whether the folder is there. What is no folder, or cannot be read, raises an OSError."""
        if self._folder is not None:
            try:
                with os.scandir(self._folder):
                    pass
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[Writer]:
        """Write a new file; it is deleted where the context ends with an error."""
        import obstore

        with _usable(self.address):
            if self._folder is not None and not self._exists():
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = obstore.open_writer(self._store, path, buffer_size=PART_BYTES)
        try:
            yield _File(file, self.address)
            with _usable(self.address):
                file.close()
                self._sync(path)
        except BaseException:
            with contextlib.suppress(Exception):
                file.close()
            with contextlib.suppress(Exception):
                obstore.delete(self._store, path)
            self._tidy(path.rpartition("/")[0])
            raise

    def _sync(self, path: str) -> None:
        """Have a file on disk, and its name; an object store answers when it has it."""
        if self._folder is not None:
            for written in (self._folder / path, (self._folder / path).parent, self._folder):
                _sync(written)

    def reader(self, path: str) -> SeekableReader:
        """Read a file, from its beginning or from wherever is wanted."""
        import obstore

        with _usable(self.address):
            return _File(obstore.open_reader(self._store, path, buffer_size=PART_BYTES), self.address)

    def read(self, path: str) -> bytes | None:
        """A small file; None where there is none."""
        import obstore

        with _usable(self.address):
            if not self._exists():
                return None
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        import obstore

        with _usable(self.address):
            try:
                return self._exists() and bool(obstore.head(self._store, path))
            except FileNotFoundError:
                return False

    def folders(self) -> list[str]:
        """The names of the folders in it, in alphabetical order."""
        import obstore

        with _usable(self.address):
            if not self._exists():
                return []
            return sorted(obstore.list_with_delimiter(self._store)["common_prefixes"])

    def remove(self, folder: str) -> None:
        """Remove a folder; its manifest first, so that no part of a backup looks like one."""
        import obstore

        with _usable(self.address):
            if self._folder is not None:
                _remove(self._folder / folder)
                return
            paths = [each["path"] for part in obstore.list(self._store, folder) for each in part]
            for path in sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")):
                with contextlib.suppress(FileNotFoundError):  # another process removes old backups, too
                    obstore.delete(self._store, path)

    def _tidy(self, folder: str) -> None:
        """Remove a folder on disk that is empty; an object store has none."""
        if self._folder is not None and folder:
            with contextlib.suppress(OSError):
                (self._folder / folder).rmdir()


class _File:
    """An open file of an object store, whose errors are those of its place."""

    def __init__(self, file: Any, address: str) -> None:
        self._file, self._address = file, address

    def write(self, value: bytes, /) -> int:
        with _usable(self._address):
            self._file.write(value)
        return len(value)

    def flush(self) -> None:
        """Nothing: a part is uploaded when it is full."""

    def read(self, most: int = -1, /) -> bytes:
        with _usable(self._address):
            return bytes(self._file.read(*([most] if most >= 0 else [])))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with _usable(self._address):
            place = offset + (0, self._file.tell(), self._file.size)[whence]  # the library takes none that is negative
            if place != self._file.tell():  # it would drop what it has read ahead
                self._file.seek(place)
            return place

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())


_ADVICE = {
    "169.254.169.254": "outside Amazon's machines set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "builder error": "an AWS_ENDPOINT_URL that begins with http:// needs AWS_ALLOW_HTTP=true",
}
"""by a part of the library's words"""


@contextlib.contextmanager
def _usable(address: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        words = str(error.strerror or error) if isinstance(error, OSError) else str(error)
        words = words.partition("Debug source:")[0]
        advice = "".join(f"; {advice}" for part, advice in _ADVICE.items() if part in words)
        raise BackupPlaceUnusable(place=address, reason=" ".join(words.split())[:300] + advice) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems of a network cannot do it for a folder
            raise
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it: of a backup that was killed, the library does not list the file."""
    with contextlib.suppress(FileNotFoundError):  # another process removes old backups, too
        if folder.is_symlink():
            folder.unlink()
            return
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)


# ── the backups of a place ──────────────────────────────────────────────────────────────────────


def read_backups(place: Place) -> list[Manifest]:
    """The complete backups whose manifest can be read, the oldest first."""
    return read_all(place)[0]


def read_all(place: Place) -> tuple[list[Manifest], list[BackupDamaged]]:
    """The complete backups, the oldest first, and what is wrong with those whose manifest cannot be read."""
    found: list[Manifest] = []
    damaged: list[BackupDamaged] = []
    for name in filter(NAME.fullmatch, place.folders()):
        try:
            manifest = _manifest(place, name)
        except BackupDamaged as error:  # it must not hide the others
            damaged.append(error)
        else:
            found += [] if manifest is None else [manifest]
    return found, damaged


def incomplete(place: Place) -> list[str]:
    """The names of backups that were interrupted, or are being made."""
    return [name for name in place.folders() if NAME.fullmatch(name) and place.read(f"{name}/{MANIFEST}") is None]


def chosen(place: Place, name: str | None) -> Manifest:
    """The backup of that name, by default the newest. Raises BackupUnknown."""
    if name is not None:
        found = _manifest(place, name) if NAME.fullmatch(name) else None
    else:
        newest = [each for each in reversed(place.folders()) if NAME.fullmatch(each)]
        found = next(filter(None, (_manifest(place, each) for each in newest)), None)
    if found is None:
        raise unknown(place, name)
    return found


def unknown(place: Place, name: str | None = None) -> BackupUnknown:
    named = f" named '{name}'" if name else ""
    return BackupUnknown(place=place.address, name=named, argument=shlex.quote(place.address))


def _manifest(place: Place, name: str) -> Manifest | None:
    value = place.read(f"{name}/{MANIFEST}")
    try:
        return None if value is None else Manifest.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise BackupDamaged(name=name, reason=f"its {MANIFEST} is wrong at '{where}' ({first['type']})") from error
