"""The settings file, paths among the settings, and the reference that is made from the code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crochet_tasks import settings
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.settings import Settings
from tests.support.paths import ROOT


def test_the_reference_is_as_made_from_the_code() -> None:
    """docs/settings.md, docs/cli.md and docs/retention.md: `make reference` writes them again."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(content)
        monkeypatch.setenv("CROCHET_CONFIG_FILE", str(path))
        return path

    return write


def test_the_environment_wins_over_the_file(file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file('api_port = 81\nlog_level = "error"\nsigned_admin = true\nCROCHET_DRAIN = 7.5\n')
    monkeypatch.setenv("CROCHET_API_PORT", "82")
    loaded = Settings.load()
    assert (loaded.api_port, loaded.log_level, loaded.signed_admin, loaded.drain) == (82, "error", True, 7.5)
    assert settings.is_set("log_level")
    assert not settings.is_set("url")


def test_each_value_has_a_source(file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file('api_port = 81\nlog_level = "error"\n')
    monkeypatch.setenv("CROCHET_API_PORT", "82")
    given = {"state_dir": tmp_path}
    found = {each.variable: (each.value, each.source) for each in Settings.load(**given).effective(given)}
    assert found["CROCHET_API_PORT"] == ("82", "environment")
    assert found["CROCHET_LOG_LEVEL"] == ("error", "file")
    assert found["CROCHET_STATE_DIR"] == (str(tmp_path), "option")
    assert found["CROCHET_DRAIN"] == ("30.0", "default")
    assert found["CROCHET_BROKER_URL"] == ("none", "default")
    assert set(found) == {settings.variable(name) for name in Settings.model_fields}


def test_a_file_that_is_wrong_is_named(file: Callable[[str], Path]) -> None:
    """What is no TOML, what is no setting, and what is a wrong value."""
    path = file("api_port = \n")
    with pytest.raises(InvalidSetting, match=r"CROCHET_CONFIG_FILE: .*config.toml cannot be read as TOML: .*line 1"):
        Settings.load()
    file("api_prot = 81\n")
    assert settings.misspelt() == [f"api_prot (in {path})"]
    file('api_port = "many"\n')
    with pytest.raises(InvalidSetting, match=r"CROCHET_API_PORT: .*\(in .*config.toml\)"):
        Settings.load()
    path.unlink()
    with pytest.raises(InvalidSetting, match=r"CROCHET_CONFIG_FILE: .*No such file"):
        Settings.load()


def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    good = {"status_file": tmp_path / "status.json", "health_dir": tmp_path / "new" / "one"}
    assert Settings.load(**good, key_file=tmp_path / "file").path_problems() == []
    bad = {"status_file": tmp_path / "no" / "status.json", "health_dir": tmp_path / "file", "key_file": tmp_path / "k"}
    problems = Settings.load(**bad).path_problems()
    assert [str(problem).split(":")[0] for problem in problems] == [
        "CROCHET_STATUS_FILE",
        "CROCHET_HEALTH_DIR",
        "CROCHET_KEY_FILE",
    ]


@pytest.mark.parametrize("name", ["status_file", "health_dir"])
def test_paths_where_root_may_write_and_nothing_can_be_are_named(name: str) -> None:
    """In /proc every user who is root has all permissions, and no file can be made."""
    (problem,) = Settings.load(**{name: "/proc/x"}).path_problems()
    assert str(problem).startswith(f"CROCHET_{name.upper()}: /proc is not writable: ")
