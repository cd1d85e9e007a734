"""That `event` is a fixed name in every line of a JSON log: log searches go by nothing else."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from crochet_tasks import telemetry
from crochet_tasks.settings import Settings
from tests.support.paths import ROOT

SAYS = {"debug": 0, "info": 0, "warning": 0, "error": 0, "exception": 0, "critical": 0, "log": 1}
"""methods of a logger, and where their message is"""
NAME = re.compile("[a-z]+(_[a-z]+)*")


def messages() -> Iterator[tuple[str, ast.expr]]:
    """The events of our own loggers, by place."""
    for path in sorted([*ROOT.glob("crochet_tasks/**/*.py"), *ROOT.glob("api/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=how), args=args) if how in SAYS:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", args[SAYS[how]]


def test_events_of_ours_are_names() -> None:
    """Never a sentence, and never made up of parts."""
    found = dict(messages())
    assert len(found) > 30
    allowed = {"READY"}  # a name, which others look for
    wrong = [
        where
        for where, said in found.items()
        if not (isinstance(said, ast.Constant) and NAME.fullmatch(str(said.value)))
        and not (isinstance(said, ast.Name) and said.id in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("logger", "form", "says"),
    [
        ("celery.worker", "json", {"event": "library", "message": "mingle: all alone", "logger": "celery.worker"}),
        ("api", "json", {"event": "library", "message": "mingle: all alone", "logger": "api"}),  # Flask's own
        (
            "crochet_tasks.services.relay",
            "json",
            {"event": "mingle: all alone", "logger": "crochet_tasks.services.relay"},
        ),
        ("celery.worker", "console", None),
    ],
)
def test_what_libraries_say_is_the_message_of_one_event(
    logger: str, form: str, says: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People read the sentence where it always was."""
    root, written = logging.getLogger(), io.StringIO()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("sys.stderr", written)
    try:
        telemetry.logs("test", Settings.load(log_format=form))
        logging.getLogger(logger).warning("mingle: %s", "all alone")
    finally:
        root.setLevel(level)
    (line,) = written.getvalue().splitlines()
    if says is None:
        assert line.endswith(" test WARNING mingle: all alone")
    else:
        assert json.loads(line).items() >= says.items()
