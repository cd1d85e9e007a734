"""Releases of the program, each in a folder of its own: this one, the one before it, and one that comes after it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from crochet_tasks.db import schema
from tests.support.cluster import Cluster
from tests.support.commands import PYTHON
from tests.support.paths import ROOT

PARTS = ("crochet_tasks", "api", "web", "celeryconfig.py")
SOURCES = ("*.pyx", "*.pxd")
MIGRATION = """
from pathlib import Path

from alembic import op

revision = "{head}"
down_revision = "{before}"


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(Path(__file__).with_suffix(".sql").read_text())
"""


class Release(NamedTuple):
    """Where its code is, and the HEAD of its schema."""

    folder: Path
    head: str

    def start(self, deployment: Cluster, *command: str, **environment: str) -> str:
        """Start a process of it; its name. Those of this release are forked."""
        if self.folder == ROOT:
            return deployment.start(*command, **environment)
        own = {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}
        return deployment.start("crochet_tasks", *command, program=PYTHON, **own, **environment)


def this() -> Release:
    return Release(ROOT, schema.HEAD)


def following(folder: Path) -> Release:
    """A release as one may come after this one: it adds a column and a table, needs them, and writes a newer format.

    To write that at once breaks the rule of docs/upgrades.md: so older workers get what they cannot read.
    """
    for part in PARTS:
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
    head = f"{int(schema.HEAD) + 1:04}"
    versions = folder / "crochet_tasks" / "db" / "migrations" / "versions"
    (versions / f"{head}_hats.py").write_text(MIGRATION.format(head=head, before=schema.HEAD))
    (versions / f"{head}_hats.sql").write_text(
        "ALTER TABLE texts ADD COLUMN hat text DEFAULT 'none'; CREATE TABLE hats (hat text PRIMARY KEY)"
    )
    _change(folder / "crochet_tasks/db/schema.py", f'HEAD = "{schema.HEAD}"', f'HEAD = "{head}"')
    _change(folder / "crochet_tasks/db/schema.py", f'OLDEST = "{schema.OLDEST}"', f'OLDEST = "{head}"')
    messages = folder / "crochet_tasks" / "broker" / "messages.py"
    _change(messages, "FORMAT: ClassVar[int] = 1", "FORMAT: ClassVar[int] = 2")
    _change(messages, "format: Annotated[int, Field(ge=1)] = 1", 'hat: str = "none"\n    format: int = 2')
    return Release(folder, head)


def _change(path: Path, old: str, new: str) -> None:
    code = path.read_text(encoding="utf-8")
    assert code.count(old) == 1, f"{path} has '{old}' {code.count(old)} times"
    path.write_text(code.replace(old, new))


class NoHistory(Exception):
    """The checkout has no commit that can run beside this one."""


def before(folder: Path) -> Release:
    """The newest commit before this one that has another schema, else the one before it.

    Raises NoHistory in a shallow clone, and where the commits before know no range of schemas (ADR 0059).
    """
    found: list[tuple[str, str]] = []
    for commit in _git("rev-list", "--first-parent", "--max-count=300", "HEAD^").decode().split():
        code = _git("show", f"{commit}:crochet_tasks/db/schema.py").decode()
        if "\nSERVES = " not in code:
            break
        found.append((commit, code.split('\nHEAD = "')[1][:4]))
    if not found:
        raise NoHistory("this clone has no older commit that knows a range of schemas: fetch more of the history")
    commit, head = next((each for each in found if each[1] != schema.HEAD), found[0])
    archive = _git("archive", commit, *PARTS, "hatch_build.py")
    folder.mkdir(parents=True, exist_ok=True)
    # Not by tarfile, which warns where no filter is named; Debian 12's knows none.
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    _compile(folder)
    return Release(folder, head)


def _compile(folder: Path) -> None:
    """Take the compiled engine of this release where its sources are the same."""
    here, there = ROOT / "crochet_tasks/engine", folder / "crochet_tasks/engine"
    names = [path.name for pattern in SOURCES for path in there.glob(pattern)]
    if all((here / name).exists() and (here / name).read_bytes() == (there / name).read_bytes() for name in names):
        for path in here.glob("*.so"):
            shutil.copy(path, there)
        return
    found = importlib.util.spec_from_file_location("hatch_build_before", folder / "hatch_build.py")
    assert found is not None
    assert found.loader is not None
    build = importlib.util.module_from_spec(found)
    found.loader.exec_module(build)
    build.compile_kernel(there)


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise NoHistory(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
