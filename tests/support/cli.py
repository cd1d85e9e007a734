"""The command line as tests use it: run, started, refused; what is exported, and what the oracle says."""

from __future__ import annotations

import functools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from crochet_tasks.db.process import open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.reports import OrthoLine, RunReport
from crochet_tasks.settings import Settings, environment
from tests.support import forks, oracle
from tests.support.commands import CROCHET
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

HARBOUR = ROOT / "examples" / "harbour.txt"
EVENING = ROOT / "examples" / "harbour-evening.txt"


def crochet(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return forks.run([*CROCHET, *map(str, arguments)], environment(**settings), SECONDS)


def fed(stdin: bytes, *arguments: object) -> subprocess.CompletedProcess[str]:
    """As `crochet`, with this on standard input."""
    return forks.run([*CROCHET, *map(str, arguments)], environment(), SECONDS, stdin)


def started(*arguments: object, program: Sequence[str] = CROCHET) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def in_shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def report_of(done: subprocess.CompletedProcess[str]) -> RunReport:
    """The one JSON object on standard output."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return RunReport.model_validate_json(done.stdout)


def refused(done: subprocess.CompletedProcess[str], exit_code: int, code: str, *says: str) -> None:
    """Nothing on standard output, one line on standard error."""
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert re.fullmatch(rf"crochet: .+ \[{code}\]\n", done.stderr), done.stderr
    for part in says:
        assert part in done.stderr


def exported(state: Path, corpus: str = "main") -> dict[oracle.Ortho, int]:
    """Every stored ortho and when it was born; each is there once."""
    done = crochet("export", "--state", state, "--corpus", corpus)
    assert done.returncode == 0, done.stderr
    lines = [OrthoLine.model_validate_json(line) for line in done.stdout.splitlines()]
    orthos = {(tuple(line.shape), tuple(line.words)): line.born for line in lines}
    assert len(orthos) == len(lines) == len({line.id for line in lines})
    return orthos


def shapes(orthos: dict[oracle.Ortho, int]) -> dict[str, int]:
    return dict(Counter("x".join(map(str, sides)) for sides, _ in orthos))


@functools.cache
def closure(*files: Path, **limits: int) -> dict[oracle.Ortho, int]:
    return oracle.closure([file.read_text() for file in files], **limits)


@contextmanager
def database(state: Path) -> Iterator[Database]:
    """The private database of a state folder, behind the program's back."""
    with EmbeddedPostgres(state) as server, open_process(Settings.load(), server.url) as opened:
        yield opened.database


def execute(state: Path, *statements: str) -> None:
    with database(state) as opened, opened.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement))
