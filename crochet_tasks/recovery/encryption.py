"""Encryption of dumps by age (age-encryption.org): making a backup needs only the public key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crochet_tasks.errors import BackupKeyWrong

if TYPE_CHECKING:
    from pyrage.x25519 import Identity, Recipient

    from crochet_tasks.recovery.places import Reader, Writer


def recipient(key: str) -> Recipient:
    """The public key `age1…` of who may read a backup. Raises BackupKeyWrong."""
    from pyrage import RecipientError, x25519

    try:
        return x25519.Recipient.from_str(key.strip())
    except RecipientError:
        raise BackupKeyWrong(reason="--recipient takes a public key that begins with 'age1'") from None


def identities(file: Path) -> list[Identity]:
    """The secret keys of a file of `age-keygen`. Raises BackupKeyWrong."""
    from pyrage import IdentityError, x25519

    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        found = [x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError, IdentityError) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else "it holds something else than age keys"
        raise BackupKeyWrong(reason=f"--identity {file} cannot be used: {reason}") from None
    if not found:
        raise BackupKeyWrong(reason=f"--identity {file} holds no key")
    return found


def encrypt(source: Reader, target: Writer, to: Recipient) -> None:
    """Encrypt all that a source gives."""
    from pyrage import encrypt_io

    with _raising(reader := _Noted(source), writer := _Noted(target)):
        encrypt_io(reader, writer, [to])


def decrypt(source: Reader, target: Writer, keys: list[Identity]) -> None:
    """Decrypt all that a source gives. Raises BackupKeyWrong where none of the keys fits."""
    from pyrage import decrypt_io

    with _raising(reader := _Noted(source), writer := _Noted(target)):
        decrypt_io(reader, writer, keys)


class _Noted:
    """A file that keeps its error: the library passes on the words of it only."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: BaseException | None = None

    def read(self, most: int = -1, /) -> bytes:
        found: bytes = self._noted(self._file.read, most)
        return found

    def write(self, value: bytes, /) -> int:
        written: int = self._noted(self._file.write, value)
        return written

    def flush(self) -> None:
        self._noted(self._file.flush)

    def _noted(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return call(*arguments)
        except BaseException as error:
            self.error = error
            raise


@contextlib.contextmanager
def _raising(*files: _Noted) -> Iterator[None]:
    from pyrage import DecryptError, EncryptError

    try:
        yield
    except (DecryptError, EncryptError, OSError) as error:
        for file in files:
            if file.error is not None:
                raise file.error from None
        raise BackupKeyWrong(reason=f"the backup cannot be decrypted with these keys: {error}") from None
