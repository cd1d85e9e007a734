"""What a command that failed says last, and its exit code."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import typer

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
    return program.outcome([], debug=False), capfd.readouterr().err


def test_an_error_in_its_own_chain_ends_the_search(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one is that was raised again while another, which it caused, was handled."""
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert _ended_by(first, monkeypatch, capfd)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--budget", "0"], "'--budget': must be a number of orthos, at least 1, or 'all'"),
        (["run", "--budget", "1_0"], "'--budget': must be a number of orthos, at least 1, or 'all'"),
        (["run", "--max-axes", "٣"], "'--max-axes': must be a whole number, in decimal digits"),
        (["run", "--max-side", "+5"], "'--max-side': must be a whole number, in decimal digits"),
        (["run", "--state", ""], "'--state': it is empty; name a folder"),
        (["worker", "--concurrency", "257"], "'--concurrency': must be at most 256"),
        (["worker", "--autoscale", "x"], "'--autoscale': must be a whole number, in decimal digits"),
        (["worker", "--autoscale", "0"], "'--autoscale': must be MAX,MIN, such as 4,1"),
        (["worker", "--autoscale", "1,3"], "'--autoscale': must be MAX,MIN, such as 4,1"),
        (["worker", "--autoscale", "3,-1"], "'--autoscale': must be MAX,MIN, such as 4,1"),
        (["worker", "--autoscale", "3,2,1"], "'--autoscale': must be MAX,MIN, such as 4,1"),
        (["api", "--port", "70000"], "'--port': must be at most 65535"),
        (["status", "--every", "nan"], "'--every': must be a number, such as 30 or 2.5"),
        (["status", "--every", "0"], "'--every': must be at least 0.05"),
        (["keys", "log", "--since", "x"], "'--since': must be a time, such as 2026-11-28T12:00"),
        (["export", "--format", "xml"], "'--format': 'xml' is not one of 'jsonl', 'csv', 'text'."),
        (["work", "list", "--state", "x"], "'--state': 'x' is not one of 'open', "),
    ],
)
def test_a_wrong_value_of_an_option_is_in_our_words(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert program.outcome(arguments, debug=False) == 2
    assert capfd.readouterr().err.startswith(f"crochet: Invalid value for {words}")


def test_no_option_leaves_numbers_to_typer() -> None:
    """Typer reads a plain `int` or `float` as pydantic does: 1_0 and +5, too."""
    plain = []
    commands: list[tuple[str, Any]] = [("crochet", typer.main.get_command(program.app))]
    while commands:
        name, command = commands.pop()
        commands += [(f"{name} {each}", sub) for each, sub in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            described = getattr(parameter, "type_descriptor", None)
            if described and described.annotation in (int, float) and not described.parameter_info.parser:
                plain.append(f"{name} {parameter.opts[0]}")
    assert plain == []
