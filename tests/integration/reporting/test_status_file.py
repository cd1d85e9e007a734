"""The status file: whole, dated, and no trouble of it harms the relay."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import re
import stat
import threading
from pathlib import Path
from typing import NoReturn, get_args

import pytest

from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import DatabaseUnavailable, kinds
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.statistics import StatisticsNow, StatusFile, TimeLeft, Unknown
from crochet_tasks.services import status_file
from crochet_tasks.services.status_file import Writing
from crochet_tasks.settings import Settings
from crochet_tasks.terminal import status as pages
from tests.support import steps
from tests.support.past import Past
from tests.support.paths import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["why"]) for record in caplog.records if record.message == "status_file_failed"]


def test_the_status_file_is_whole_and_says_when(process: Process, path: Path) -> None:
    """A reader that has the old one open reads that to its end; others may read it, and nothing is left beside it."""
    Past(process, steps.new_corpus(process)).searched(1, 30)
    path.parent.mkdir()
    path.write_text("an older one")
    file = Writing(process, path)
    before = dt.datetime.now(dt.UTC)
    with path.open() as reading:
        file.write()
        assert reading.read() == "an older one"
    seen = StatusFile.model_validate_json(path.read_text())
    assert before <= seen.at <= dt.datetime.now(dt.UTC)
    assert seen.every == process.settings.status_file_every
    assert seen.statistics.paces[0].tries
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_status_file_that_cannot_be_written_harms_nothing(
    process: Process, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder, a full disk, no database, a bug: each is reported once per outage; the old file stays."""
    file = Writing(process, path)
    file.write()
    file.write()
    assert complaints(caplog) == ["not_written"]
    path.parent.mkdir()
    file.write()
    whole = path.read_bytes()

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def away(*_: object) -> NoReturn:
        raise DatabaseUnavailable(reason="a test")

    def broken(*_: object) -> NoReturn:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", full)
        file.write()
        file.write()
        patch.setattr(statistics, "everything", away)
        file.write()
        file.write()
        patch.setattr(statistics, "everything", broken)
        file.write()
        file.write()
    assert complaints(caplog) == ["not_written", "not_written", "database_away", "internal"]
    assert (path.read_bytes(), list(path.parent.iterdir())) == (whole, [path])
    file.write()
    assert path.read_bytes() != whole


def test_a_relay_keeps_writing_the_status_file(process: Process, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so often, until it ends."""
    monkeypatch.setattr(status_file, "SHARE", 1.0)
    path.parent.mkdir()
    settings = Settings(status_file=path, status_file_every=0.01)
    relay = Process(settings, Database(process.database.engine.url.render_as_string(hide_password=False), settings))
    status_file.keep(relay)
    times: set[dt.datetime] = set()

    def written() -> bool:
        with contextlib.suppress(FileNotFoundError):
            times.add(StatusFile.model_validate_json(path.read_text()).at)
        return len(times) == 3

    eventually(written)
    relay.close()
    assert "status_file" not in {thread.name for thread in threading.enumerate()}


def test_the_page_about_statistics_is_true() -> None:
    """Its example is a status file, and it explains everything that can be unknown; so does the page in a terminal."""
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = StatusFile.model_validate_json(example)
    assert set(json.loads(example)["statistics"]) == set(StatisticsNow.model_fields)
    assert [pace.seconds for pace in file.statistics.paces] == list(statistics.PACES)
    assert set(kinds()) >= {each.code for each in file.statistics.errors}
    codes = re.findall(r"^\| `(\w+)` \| [a-z]", page.split("## Time left")[1], re.MULTILINE)
    assert codes == [code for code in codes if code in get_args(Unknown)]
    assert set(codes) == set(get_args(Unknown))
    for code in get_args(Unknown):
        assert code not in pages.time_left(TimeLeft(seconds=None, unknown=code))
