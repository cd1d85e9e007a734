"""Log lines go to a collector as they stand on standard error, and name the request that they are about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from crochet_tasks import telemetry
from crochet_tasks.settings import Settings
from tests.support.collectors import Otlp

pytestmark = pytest.mark.integration

log = logging.getLogger("crochet_tasks.tests")


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `telemetry.logs` changes of this process is as before."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_all_lines_of_a_request_are_found_by_its_id(own_logging: None, capfd: pytest.CaptureFixture[str]) -> None:
    """In one place: with service and version, level and time; secrets are masked there, too."""
    with Otlp() as collector:
        settings = Settings(otlp_url=SecretStr(collector.url), otlp_logs=True, log_format="json", trace_ratio=1.0)
        telemetry.logs("api", settings)
        telemetry.begin("api", settings)
        with telemetry.log_context(request="request-seven"), telemetry.span("asked"):
            log.info("answered", extra={"url": "redis://user:hunter2@redis"})
            log.warning("slow")
        log.info("of_another")
        logging.getLogger("opentelemetry.sdk").error("would beget another")
        telemetry.end()
        found = [each for each in collector.logs if json.loads(each.body).get("request") == "request-seven"]
    assert [(json.loads(each.body)["event"], each.level) for each in found] == [
        ("answered", "INFO"),
        ("slow", "WARNING"),
    ]
    assert {each.resource["service.name"] for each in found} == {"crochet-api"}
    assert len({each.trace for each in found} - {""}) == 1
    assert "hunter2" not in "".join(each.body for each in found)
    assert "would beget another" not in "".join(each.body for each in collector.logs)


def test_lines_are_not_sent_unless_that_is_on(own_logging: None) -> None:
    with Otlp() as collector:
        settings = Settings(otlp_url=SecretStr(collector.url))
        telemetry.logs("api", settings)
        telemetry.begin("api", settings)
        log.info("answered")
        telemetry.end()
        assert collector.logs == []
