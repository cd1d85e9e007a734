"""No log line, metric, span or id holds words of a text, whatever is done with it (docs/security.md, Where data is)."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from crochet_tasks import telemetry
from crochet_tasks.db.process import open_process
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments
from tests.support import steps
from tests.support.api import SETTINGS, made
from tests.support.collectors import Otlp

pytestmark = pytest.mark.integration

WORDS = ("xylophonic", "quagmired", "zephyrine", "jackdaws", "vexingly", "brumously")
TEXT = "xylophonic quagmired. zephyrine jackdaws. xylophonic zephyrine. quagmired jackdaws. vexingly brumously."
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IDS = {
    "texts": "id, state, origin, error",
    "work": "id, kind, subject, error, origin",
    "batches": "id, key, found_by",
    "idempotency": "key, answer::text",
    "audit": "subject, before::text, after::text",
    "security_log": "what, details::text",
}
"""columns with ids, and of tables that tell what happened all that they tell"""


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged from here on, at every level, as lines of JSON with tracebacks."""
    root, written = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    telemetry.logs("api", Settings(log_format="json", log_level="debug"))
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers[:] = before
    root.setLevel(level)


def found_in(content: str) -> list[str]:
    return [word for word in WORDS if word in content.lower()]


def test_words_of_texts_are_in_no_log_metric_span_or_id(database: str, tmp_path: Path, logged: io.StringIO) -> None:
    """Posted, posted again, refused, ingested, searched, stored, read and checked."""
    (tmp_path / "recorded").mkdir()
    instruments.begin(tmp_path / "recorded", "api")
    with Otlp() as collector, open_process(Settings(), database) as process:
        settings = Settings(**SETTINGS, otlp_url=SecretStr(collector.url), trace_ratio=1.0)
        telemetry.begin("api", settings)
        api = made(process, settings)
        corpus = steps.new_corpus(process, name="genesis")
        of = "/v1/corpora/genesis"
        for _ in range(2):
            sent = {"title": "a title", "body": TEXT}
            api.write.post(f"{of}/texts", json=sent, headers={"Idempotency-Key": "once", "traceparent": TRACEPARENT})
        assert api.write.post(f"{of}/texts", json={"body": f"{WORDS[4]}\0"}).status_code == 422
        assert api.write.post(f"{of}/texts/batch", json={"texts": [{"body": TEXT}, {"body": "1"}]}).status_code == 200
        steps.run(corpus)
        grid = [[WORDS[0], WORDS[1]], [WORDS[2], WORDS[3]]]
        assert api.read.post(f"{of}/orthos/check", json={"grids": [grid]}).get_json()["results"][0]["stored"]
        (ortho,) = api.read.get(f"{of}/orthos").get_json()["orthos"]
        assert api.read.get(f"{of}/orthos/{ortho['id']}").status_code == 200
        telemetry.end()
        spans = [f"{span.name} {span.attributes} {span.events}" for span in collector.spans]
        ids = [str(steps.sql(process, f"SELECT {columns} FROM {table}")) for table, columns in IDS.items()]
    instruments.end()
    metrics = b"".join(path.read_bytes() for path in (tmp_path / "recorded").iterdir()).decode(errors="replace")
    assert "task_done" in logged.getvalue()
    assert len(spans) > 10
    assert "crochet_texts_accepted_total" in metrics
    assert [each for each in ids if each == "[]"] == []
    assert {
        "logs": found_in(logged.getvalue()),
        "spans": found_in(" ".join(spans)),
        "metrics": found_in(metrics),
        "ids": found_in(" ".join([*ids, ortho["id"]])),
    } == {"logs": [], "spans": [], "metrics": [], "ids": []}
