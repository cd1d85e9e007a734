"""The settings: documented, checked, and named when they are wrong."""

import re
from pathlib import Path

import pytest

from crochet_tasks import settings
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.settings import PREFIX, Settings
from tests.support.paths import ROOT

README = ROOT / "README.md"


def test_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    """The table is the code's."""
    rows = re.findall(r"^\| `(CROCHET_\w+)` \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE)
    fields = Settings.model_fields
    assert {name: meaning for name, _, meaning in rows} == {
        f"{PREFIX}{name.upper()}": field.description for name, field in fields.items()
    }
    plain = {f"{PREFIX}{name.upper()}": str(f.default) for name, f in fields.items() if f.default_factory is None}
    assert {name: default.lower() for name, default, _ in rows if name in plain} == {
        name: default.lower() for name, default in plain.items()
    }


def test_every_wrong_value_is_named_and_none_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may be secrets."""
    monkeypatch.setenv("CROCHET_DATABASE_URL", "mysql://root:hunter2@db/x")
    monkeypatch.setenv("CROCHET_BATCH_ORTHOS", "0")
    problems = Settings.problems()
    assert [problem.context["variable"] for problem in problems] == ["CROCHET_DATABASE_URL", "CROCHET_BATCH_ORTHOS"]
    assert "hunter2" not in " ".join(map(str, problems))
    with pytest.raises(InvalidSetting, match="CROCHET_DATABASE_URL: must be a Postgres address"):
        Settings.load()


def test_given_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROCHET_STATE_DIR", "/elsewhere")
    assert Settings.load().state_dir == Path("/elsewhere")
    assert Settings.load(state_dir=tmp_path).state_dir == tmp_path


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROCHET_DATABSE_URL", "postgresql://db/x")
    monkeypatch.setenv("CROCHET_BATCH_ORTHOS", "7")
    assert settings.strangers() == ["CROCHET_DATABSE_URL"]
