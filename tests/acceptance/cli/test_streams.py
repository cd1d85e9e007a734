"""Standard streams that are closed, full or not read: the outcome is the command's, never an internal error."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest

from crochet_tasks.access import tenancy
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import DEFAULT_TENANT, CorpusFields
from crochet_tasks.db.process import open_process as process
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.settings import Settings, environment
from tests.support.cli import HARBOUR, in_shell, refused
from tests.support.commands import CROCHET
from tests.support.longer import by_run
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.acceptance

COMMAND = " ".join(CROCHET)


def test_standard_input_that_is_closed_is_named(tmp_path: Path) -> None:
    done = in_shell(f"{COMMAND} run - --state {tmp_path / 'state'} <&-")
    refused(done, 3, "text_unreadable", "standard input", "it is closed")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("stream", by_run(["2>/dev/full"], longer=["2>&-"]))
def test_standard_error_decides_nothing(harbour: Path, tmp_path: Path, stream: str) -> None:
    """The one JSON object is there, and the exit code is the command's: also of errors, whose message is lost."""
    done = in_shell(f"{COMMAND} run {HARBOUR} --state {harbour} --json {stream}")
    assert (done.returncode, json.loads(done.stdout)["total"]) == (0, 570)
    assert in_shell(f"{COMMAND} run {tmp_path}/lost.txt {stream}").returncode == 3
    assert in_shell(f"{COMMAND} nonsense {stream}").returncode == 2
    assert in_shell(f"{COMMAND} export --state {harbour} {stream}").stdout.count("\n") == 570


@pytest.mark.parametrize(
    "command",
    ["--help >&-", "--version >/dev/full", "run --help >/dev/full", "export >/dev/full", "status >&-",
     "status --json >/dev/full", "verify >&-", "doctor >/dev/full", "settings >&-", "corpora list >/dev/full"],
)  # fmt: skip
def test_output_that_cannot_be_written_is_an_error(harbour: Path, command: str) -> None:
    """One line says so; `verify` has written of its progress before."""
    arguments, stream = command.rsplit(" ", 1)
    of = "" if "help" in arguments or "version" in arguments else f"--state {harbour}"
    done = in_shell(f"{COMMAND} {arguments} {of} {stream}")
    last = [line for line in done.stderr.splitlines() if not line.startswith("crochet: checked ")]
    assert (done.returncode, len(last)) == (1, 1), done.stderr
    assert re.fullmatch(r"crochet: the output cannot be written: .+ \[output_failed\]", last[0])


@pytest.mark.usefixtures("ready_state")
def test_output_that_cannot_be_written_loses_no_work(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = in_shell(f"{COMMAND} run {HARBOUR} --state {state} --json >&-")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("[output_failed]")
    again = in_shell(f"{COMMAND} run --state {state} --json")
    assert (json.loads(again.stdout)["total"], json.loads(again.stdout)["closed"]) == (570, True)


def test_a_signal_handler_may_write_during_a_write() -> None:
    """To standard error: a buffer in between would refuse the second one with RuntimeError."""
    program = "import io, sys; from crochet_tasks.terminal import streams; streams.prepare(); streams.note('x' * 9)"
    check = "assert isinstance(sys.stderr.buffer, io.RawIOBase)"
    done = in_shell(f'{CROCHET[0]} -c "{program}; {check}"')
    assert (done.returncode, done.stderr) == (0, "crochet: xxxxxxxxx\n")


def test_all_three_may_be_closed(harbour: Path) -> None:
    """No file of the program takes the place of a stream: the store is still good."""
    assert in_shell(f"{COMMAND} run {HARBOUR} --state {harbour} <&- >&- 2>&-").returncode == 1
    assert in_shell(f"{COMMAND} verify --state {harbour}").stdout == "corpus 'main': no problems\n"


def test_a_reader_that_leaves_is_no_error(harbour: Path) -> None:
    done = in_shell(f"set -o pipefail; {COMMAND} status --watch --every 0.05 --state {harbour} | head -n 1")
    assert (done.returncode, done.stderr) == (0, "")


# ── text from outside ───────────────────────────────────────────────────────────────────────────

EVIL = "\x1b]0;owned\x07\x9b31m\u202egnp.txt"
ALLOWED = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""what rich itself writes: colours, the cursor"""


def in_terminal(*arguments: object) -> str:
    """What a command writes to a terminal, standard error too."""
    master, slave = pty.openpty()
    command = [*CROCHET, *map(str, arguments)]
    started = subprocess.Popen(
        command, cwd=ROOT, env=environment(TERM="xterm"), stdin=slave, stdout=slave, stderr=slave, close_fds=True
    )
    os.close(slave)
    written = b""
    while select.select([master], [], [], SECONDS)[0]:
        try:
            written += os.read(master, 1 << 16)
        except OSError:  # its end
            break
    started.wait(SECONDS)
    os.close(master)
    return written.decode()


def harmless(written: str) -> bool:
    rest = ALLOWED.sub("", written)
    return all(each.isprintable() or each in "\r\n" for each in rest)


@pytest.mark.usefixtures("ready_state")
@pytest.mark.long
def test_names_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    """A file's name, a title and a description: in messages, tables and JSON."""
    state, file = tmp_path / "state", tmp_path / f"{EVIL}.txt"
    file.write_bytes(b"the sea \xff")
    refused_text = in_terminal("run", file, "--state", state)
    assert "\\u202egnp.txt" in refused_text.replace("\r\n", "")
    assert harmless(refused_text)
    file.write_text("the sea. the sky. sea and. sky and.")
    assert harmless(in_terminal("run", file, "--state", state))
    with EmbeddedPostgres(state) as server, process(Settings.load(), server.url) as opened:
        made = CorpusFields("escaped", EVIL, None)
        tenancy.create(opened, DEFAULT_TENANT, made, Limits())
        with opened.database.snapshot() as connection:
            assert [each.description for each in corpora.every(connection)] == [EVIL, ""]
    for arguments in (["corpora", "list"], ["corpora", "list", "--json"], ["status"], ["run", file]):
        shown = in_terminal(*arguments, "--state", state)
        assert harmless(shown), arguments
    assert harmless(in_terminal("export", "--corpus", EVIL, "--state", state))
    assert harmless(in_terminal(EVIL))
