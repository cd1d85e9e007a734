"""The command line, as it is typed on a machine of the deployment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crochet_tasks.cli import program

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(
    distributed_database: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Typed:
    """Types `crochet ...`: its exit status and what it wrote to standard output and error."""
    monkeypatch.setenv("CROCHET_DATABASE_URL", distributed_database)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = program.outcome([*arguments], debug=False)
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return run
