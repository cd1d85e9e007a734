"""How a script that a test ran has ended."""

from __future__ import annotations

import subprocess

Ended = subprocess.CompletedProcess[str]


def succeeded(ended: Ended) -> bool:
    assert ended.returncode == 0, ended.stderr
    return True


def failed(ended: Ended, *said: str) -> bool:
    assert ended.returncode != 0
    assert not [each for each in said if each not in ended.stderr], ended.stderr
    return True
