"""That no log line holds a secret, wherever in it one was put."""

from __future__ import annotations

import io
import json
import logging

import pytest

from crochet_tasks import telemetry
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry.masking import masked

SECRET = "A" * 43
KEY = f"crk_aaaaaaaaaa_{SECRET}"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:p@ss:w@rd@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me:p/ss@db/x", "postgresql://me:***@db/x"),
        ("redis://:hunter2@cache/0 and amqp://a:b@broker//", "redis://:***@cache/0 and amqp://a:***@broker//"),
        ("postgresql://db/x?user=me&password=hunter2&sslmode=on", "postgresql://db/x?user=me&password=***&sslmode=on"),
        (r"host=db password='hun\'ter 2' user=me", "host=db password=*** user=me"),
        ("PGPASSWORD=hunter2 CROCHET_JWT_SECRET = hunter2", "PGPASSWORD=*** CROCHET_JWT_SECRET = ***"),
        ("{'user': 'me', 'password': 'hunter2'}", "{'user': 'me', 'password': ***}"),
        ("Authorization: Basic bWU6aHVudGVyMg==", "Authorization: Basic ***"),
        (f"Bearer {KEY} was refused", "Bearer crk_aaaaaaaaaa_*** was refused"),
        (f"crr_{SECRET}", "crr_***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.abc-_", "token ***"),
        ({"headers": [KEY]}, {"headers": ["crk_aaaaaaaaaa_***"]}),
        (
            {KEY: 1, "password": "hunter2", "db_secret": None},
            {"crk_aaaaaaaaaa_***": 1, "password": "***", "db_secret": None},
        ),
        (f"\xff{KEY}".encode("latin-1"), r"\xffcrk_aaaaaaaaaa_***"),
        ({KEY}, ["crk_aaaaaaaaaa_***"]),
        ((ValueError(KEY), 7, None, True), ["crk_aaaaaaaaaa_***", 7, None, True]),
        # and words stay what they are
        ("the crk_ of a sentence", "the crk_ of a sentence"),
        ("basic authentication is off, and the password: none", "basic authentication is off, and the password: none"),
        ("http://127.0.0.1:8080/v1/corpora/a@b", "http://127.0.0.1:8080/v1/corpora/a@b"),
    ],
)
def test_secrets_are_masked(raw: object, shown: object) -> None:
    """Whatever they look like; what is none is not."""
    assert masked(raw) == shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_has_a_secret(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the message, in its fields, in what is bound, in a traceback, of libraries or ours."""
    root, written = logging.getLogger(), io.StringIO()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("sys.stderr", written)
    url = "postgresql://me:hunter2@db/x"
    try:
        telemetry.logs("test", Settings.load(log_format=form))
        with telemetry.log_context(work=f"bound {KEY}"):
            logging.getLogger("celery").warning("cannot reach %s", url)
        about = {"error": ValueError(url), "headers": {"Authorization": KEY, "from": {KEY.encode()}}}
        logging.getLogger("crochet_tasks.test").warning("refused", extra=about)
        logging.getLogger("crochet_tasks.test").error("failed", exc_info=ConnectionError(url))
    finally:
        root.setLevel(level)
    raw = written.getvalue()
    assert "hunter2" not in raw
    assert SECRET not in raw
    # The address is in a sentence, in an error and in a traceback; the key is bound, and in a set.
    assert raw.count("postgresql://me:***@db/x") == 3
    assert raw.count("crk_aaaaaaaaaa_***") == 2
    if form == "json":
        assert [json.loads(line)["level"] for line in raw.splitlines()] == ["warning", "warning", "error"]
