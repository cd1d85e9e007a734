"""What a command that failed says last, and its exit code."""

from __future__ import annotations

import errno
import os

import pytest

from crochet_tasks.cli import program
from crochet_tasks.errors import BrokerUnavailable, CrochetError, DatabaseUnavailable, OpenFilesLimited


def _wrapped(number: int) -> CrochetError:
    error = BrokerUnavailable(reason="it cannot be reached")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


LIMITED = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    _wrapped(errno.EMFILE),
    DatabaseUnavailable(reason="connection failed: could not create socket: Too many open files"),
]


@pytest.mark.parametrize("error", LIMITED, ids=str)
def test_a_limit_of_open_files_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever the limit was met, and whatever its error was wrapped in."""
    assert _ended_by(error, monkeypatch, capfd) == (4, f"crochet: {OpenFilesLimited()} [open_files_limited]\n")


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    refused = _wrapped(errno.ECONNREFUSED)
    assert _ended_by(refused, monkeypatch, capfd) == (4, f"crochet: {refused} [broker_unavailable]\n")
    status, message = _ended_by(OSError(errno.EIO, "Input/output error"), monkeypatch, capfd)
    assert (status, message.split("(--debug")[0]) == (
        1,
        "crochet: internal error, please report it: OSError: [Errno 5] Input/output error ",
    )


def _ended_by(error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def command(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(program, "app", command)
    return program._outcome([], debug=False), capfd.readouterr().err


def test_an_error_in_its_own_chain_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one is that was raised again while another, which it caused, was handled."""
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert _ended_by(first, monkeypatch, capfd)[0] == 1
