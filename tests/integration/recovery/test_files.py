"""One file at a place: a folder or an object store, encrypted or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyrage import x25519

from crochet_tasks.errors import BackupKeyWrong, FileExists, FileUnknown
from crochet_tasks.recovery import files

pytestmark = pytest.mark.integration

PARTS = [os.urandom(70_000), b"", b"the end"]
KEY = x25519.Identity.generate()


def read(address: str) -> bytes:
    with files.opened(address, [KEY]) as file:
        file.seek(-7, 2)
        assert file.read() == b"the end"
        size = file.tell()
        file.seek(0)
        parts = [file.read(1000), file.read()]
    assert size == sum(map(len, parts))
    return b"".join(parts)


@pytest.mark.parametrize("recipient", [None, KEY.to_public()])
def test_a_file_in_a_folder(tmp_path: Path, recipient: x25519.Recipient | None) -> None:
    """It is read from wherever is wanted, and replaced only where that is said."""
    address = str(tmp_path / "x.crochet")
    assert files.write(address, PARTS, recipient) == 70_007
    assert read(address) == b"".join(PARTS)
    assert (Path(address).read_bytes() == b"".join(PARTS)) == (recipient is None)
    with pytest.raises(FileExists):
        files.write(address, PARTS)
    files.write(address, PARTS, overwrite=True)
    with pytest.raises(FileUnknown), files.opened(f"{address}.not-there"):
        pass


def test_a_file_in_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="archives")
    files.write("s3://archives/a/x.crochet", PARTS)
    monkeypatch.setattr("crochet_tasks.recovery.places.PART_BYTES", 20_000)  # several are read
    assert read("s3://archives/a/x.crochet") == b"".join(PARTS)
    with pytest.raises(FileExists):
        files.write("s3://archives/a/x.crochet", PARTS)


def test_what_fails_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"some"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write(str(tmp_path / "x"), parts())
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_file_needs_its_key(tmp_path: Path) -> None:
    address = str(tmp_path / "x")
    files.write(address, PARTS, KEY.to_public())
    for keys in (None, [x25519.Identity.generate()]):
        with pytest.raises(BackupKeyWrong), files.opened(address, keys):
            pass
