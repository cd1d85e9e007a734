"""Phrases are stored as compressed differences, in a quarter of the space."""

import zlib
from pathlib import Path

import numpy as np
import zstandard
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    chunks = driver.execute("SELECT corpus, first FROM phrases").fetchall()
    for chunk in chunks:  # one at a time: a corpus may have more phrases than there is memory
        row = driver.execute("SELECT parent, word FROM phrases WHERE corpus = %s AND first = %s", chunk, binary=True)
        packed = map(_packed, row.fetchone())
        driver.execute("UPDATE phrases SET parent = %s, word = %s WHERE corpus = %s AND first = %s", (*packed, *chunk))


def _packed(value: bytes) -> bytes:
    """What engine/runs.py calls packed numbers, in format 1, from numbers as int4, little-endian."""
    differences = np.diff(np.frombuffer(value, "<i4"), prepend=np.int32(0)).astype("<i4").tobytes()
    rest = (len(value) // 4).to_bytes(4, "little") + zstandard.ZstdCompressor(3).compress(differences)
    return bytes([1]) + zlib.crc32(rest).to_bytes(4, "little") + rest
