"""The settings: documented, checked, explained, and named when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from crochet_tasks import settings
from crochet_tasks.broker import permissions
from crochet_tasks.db import privileges
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.settings import Settings, checks
from crochet_tasks.settings.field_types import ROLES, passwords


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
    assert settings.misspelt() == ["CROCHET_DATABSE_URL"]
    assert Settings.load().warnings() == ["CROCHET_DATABSE_URL is no setting; if it is misspelt, correct it"]


# ── values that contradict each other ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"retry_first": 301}, "CROCHET_RETRY_FIRST: .*CROCHET_RETRY_LONGEST"),
        ({"lock_timeout": 61}, "CROCHET_LOCK_TIMEOUT: .*CROCHET_STATEMENT_TIMEOUT"),
        ({"statement_timeout": 5}, "CROCHET_LOCK_TIMEOUT: .*CROCHET_STATEMENT_TIMEOUT"),
    ],
)
def test_contradictions_are_refused(given: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        Settings.load(**given)
    assert len(Settings.problems(**given)) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"lease": 5}, "CROCHET_LEASE"),
        ({"drain": 121}, "CROCHET_DRAIN"),
        ({"published_limit": 3, "concurrency": 4}, "CROCHET_PUBLISHED_LIMIT"),
    ],
)
def test_doubtful_values_are_warned_of(given: dict[str, float], named: str) -> None:
    (warning,) = Settings.load(**given).warnings()
    assert warning.startswith(f"{named} is ")


def test_the_defaults_are_beyond_doubt() -> None:
    assert Settings.load().warnings() == []
    assert Settings.problems() == []


def test_the_limit_of_a_task_is_celerys() -> None:
    import celeryconfig

    assert celeryconfig.task_soft_time_limit == Settings().task_seconds < celeryconfig.task_time_limit


# ── secrets ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("postgresql://user:p@ss/w?rd#@db:5432/name", "postgresql://***@db:5432/name"),
        ("postgresql://db/name?password=hidden", "postgresql://db/name?***"),
        ("amqp://guest:guest@127.0.0.1:5672//", "amqp://***@127.0.0.1:5672//"),
        ("redis://localhost/0", "redis://localhost/0"),
        ("user:password", "***"),
        ("x" * 32, "***"),
    ],
)
def test_secrets_are_masked(secret: str, shown: str) -> None:
    assert checks.masked(secret) == shown


def test_a_removed_setting_is_a_doubt_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what does its work now; it is not called misspelt."""
    monkeypatch.setenv("CROCHET_TRACE_SLOW", "nonsense")
    monkeypatch.setenv("CROCHET_METRICS_EVERY", "15")
    doubts = [doubt for doubt in Settings.load().warnings() if "TRACE_SLOW" in doubt or "METRICS_EVERY" in doubt]
    assert [doubt.partition(":")[0] for doubt in doubts] == [
        "CROCHET_TRACE_SLOW has no effect any more",
        "CROCHET_METRICS_EVERY has no effect any more",
    ]


@pytest.mark.parametrize(("given", "budget"), [(None, 10_000_000), ("5", 5), ("all", None)])
def test_the_default_budget_is_a_number_or_all(
    monkeypatch: pytest.MonkeyPatch, given: str | None, budget: int | None
) -> None:
    if given is not None:
        monkeypatch.setenv("CROCHET_DEFAULT_BUDGET", given)
    assert Settings.load().budget == budget


@pytest.mark.parametrize("given", ["0", "-1", "none", "1.5"])
def test_another_default_budget_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CROCHET_DEFAULT_BUDGET", given)
    (problem,) = Settings.problems()
    assert "CROCHET_DEFAULT_BUDGET" in str(problem)
    assert "'all'" in str(problem)


# ── the console ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("given", ["default", "ops.team", "-"])
def test_operators_are_of_a_tenant_or_there_are_none(given: str) -> None:
    assert Settings.load(operator_tenant=given).operator_tenant == given


@pytest.mark.parametrize("given", ["--", "a b", "../x", "é"])
def test_what_no_tenant_is_called_is_refused(given: str) -> None:
    with pytest.raises(InvalidSetting, match="CROCHET_OPERATOR_TENANT: must be the name of a tenant, or -"):
        Settings.load(operator_tenant=given)


@pytest.mark.parametrize("given", ["http://127.0.0.1:5555", "https://flower.example/under/here"])
def test_links_are_addresses_of_the_web(given: str) -> None:
    settings = Settings.load(flower_url=given, grafana_url=given)
    assert (settings.flower_url, settings.grafana_url) == (given, given)


@pytest.mark.parametrize(
    "given", ["javascript:alert(1)", "ftp://x", "//x", "https://", "https://user:pass@x", "https://x/ y", "x\ny"]
)
def test_other_links_are_refused(given: str) -> None:
    for name in ("flower_url", "grafana_url"):
        with pytest.raises(InvalidSetting, match=f"CROCHET_{name.upper()}: must be an address"):
            Settings.load(**{name: given})


# ── words ───────────────────────────────────────────────────────────────────────────────────────

NOT_OURS = ("Input should", "Value error", "String should", "is not valid", "pydantic")


@pytest.mark.parametrize(
    "value", ["", "\ud800", "1_0", " 5", "+5", "1e3", "1.", "0x10", "٣", "nan", "inf", "-1", "010", "9" * 30]
)
def test_what_is_wrong_with_a_setting_is_in_our_words(value: str) -> None:
    """Whatever the kind of the setting: no library's words, and no number that other programs would read as another."""
    given = dict.fromkeys(Settings.model_fields, value)
    problems = Settings.problems(**given)
    fields = Settings.model_fields.items()
    numbers = {settings.variable(name) for name, field in fields if field.annotation in (int, float, int | None)}
    assert numbers <= {problem.context["variable"] for problem in problems}
    for problem in problems:
        assert not any(words in str(problem) for words in NOT_OURS), problem


@pytest.mark.parametrize("value", [None, [], {}, -1, 1e300, True])
def test_what_is_wrong_with_a_value_of_the_file_is_in_our_words(value: object) -> None:
    """TOML has types."""
    for problem in Settings.problems(**dict.fromkeys(Settings.model_fields, value)):
        assert not any(words in str(problem) for words in NOT_OURS), problem


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_orthos": "0"}, "CROCHET_BATCH_ORTHOS: must be at least 1"),
        ({"api_port": "65536"}, "CROCHET_API_PORT: must be at most 65535"),
        ({"trace_ratio": "1.5"}, "CROCHET_TRACE_RATIO: must be at most 1"),
        ({"environment": "test"}, "CROCHET_ENVIRONMENT: must be 'development' or 'production'"),
        ({"api_auth": "perhaps"}, "CROCHET_API_AUTH: must be on or off"),
        ({"lease": "soon"}, "CROCHET_LEASE: must be a number, such as 30 or 2.5"),
        ({"max_text_bytes": "1_0"}, "CROCHET_MAX_TEXT_BYTES: must be a whole number, in decimal digits"),
    ],
)
def test_the_words_say_what_is_right(given: dict[str, str], words: str) -> None:
    assert [str(problem) for problem in Settings.problems(**given)] == [words]


def test_passwords_of_roles_are_read_by_kind() -> None:
    given = Settings.load(role_passwords=SecretStr("api=12345678 relay=a-b_c.d~e"))
    assert passwords(given.role_passwords) == {"api": "12345678", "relay": "a-b_c.d~e"}
    assert passwords(None) == {}


@pytest.mark.parametrize("given", ["api", "api=short", "boss=12345678", "api=1234567/8", "api=12345678 api=87654321"])
def test_other_passwords_of_roles_are_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(InvalidSetting, match="CROCHET_ROLE_PASSWORDS: must be pairs such as api=PASSWORD") as refused:
        Settings.load(role_passwords=SecretStr(given))
    assert "1234567" not in str(refused.value)


def test_every_kind_that_gets_rights_is_a_kind_of_service() -> None:
    assert {*privileges.KINDS, *permissions.RIGHTS} == {*ROLES}
