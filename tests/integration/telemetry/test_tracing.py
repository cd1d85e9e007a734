"""Traces, log lines and profiles of a real deployment, as real collectors get them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from crochet_tasks import publish, telemetry
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.cli import running
from crochet_tasks.db.process import Process
from crochet_tasks.db.process import open_process as opened
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import BrokerUnavailable
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import setup
from tests.acceptance.conftest import Deploy, deploy  # noqa: F401 - a fixture
from tests.support import steps
from tests.support.celery_app import on_broker
from tests.support.cluster import Cluster, check, corpus_of, until, until_closed
from tests.support.collectors import HOST, Hanging, Otlp, Profiles, Span, log_lines, unresolved
from tests.support.commands import EVERYTHING, RELAY
from tests.support.server import take_port
from tests.support.waiting import SECONDS, eventually

pytestmark = [pytest.mark.integration, pytest.mark.acceptance, pytest.mark.slow]

TEXTS = steps.TEXTS[:2]
INGESTED = steps.TEXTS[2]
"""by the command line"""
TASKS = {"ingest.text", "context.version", "remediations.due", "search.part", "orthos.store"}


class Client:
    """Posts texts to the API of a deployment."""

    def __init__(self, process: Process, cluster: Cluster) -> None:
        assert cluster.settings.api_port
        self._address = f"http://{HOST}:{cluster.settings.api_port}"
        self._key = keys.create(process.database, KeySpec("writer", ("write",))).key

    def post(self, body: str, request: str, **headers: str) -> None:
        all_headers = {"Authorization": f"Bearer {self._key}", "X-Request-ID": request, **headers}
        address = f"{self._address}/v1/corpora/main/texts"
        answer = httpx.post(address, json={"title": request, "body": body}, headers=all_headers, timeout=SECONDS)
        assert answer.status_code == 202, answer.text
        assert httpx.get(f"{self._address}/health/live").status_code == 200


def started(cluster: Cluster) -> list[str]:
    """The names of an API, a relay and a worker for everything, ready."""
    names = [cluster.start(*command) for command in (("api",), RELAY, EVERYTHING)]
    until(lambda: all(cluster.ready(name) for name in names), cluster)
    return names


def ended(cluster: Cluster, names: list[str]) -> list[int]:
    for name in names:
        cluster.terminate(name)
    return [cluster.ended(name) for name in names]


class Seen:
    """What the collectors got of a run of texts, each by a request or command, and their logs."""

    def __init__(self, spans: list[Span], profiles: str, lines: dict[str, list[dict[str, object]]]) -> None:
        self.spans, self.profiles, self.lines = spans, profiles, lines

    def of(self, request: str) -> list[Span]:
        """The spans of the trace that a request began."""
        [trace] = {line["trace"] for line in self.lines["api"] if line.get("request") == request}
        return [span for span in self.spans if span.trace == trace]


@pytest.fixture
def seen(deploy: Deploy, tmp_path: Path) -> Iterator[Seen]:  # noqa: F811 - the fixture
    with Otlp() as collector, Profiles() as server:
        cluster = deploy(
            CROCHET_OTLP_URL=collector.url,
            CROCHET_TRACE_RATIO="1",
            CROCHET_PYROSCOPE_URL=server.url,
            CROCHET_PROFILE_RATE="100",
            CROCHET_API_PORT=str(take_port()),
            CROCHET_LOG_FORMAT="json",
        )
        with cluster.process() as process:
            corpus = corpus_of(process, Limits())
            names = started(cluster)
            client = Client(process, cluster)
            for number, body in enumerate(TEXTS):
                client.post(body, f"request-{number}")
                until_closed(process, corpus, cluster)
            (tmp_path / "text.txt").write_text(INGESTED)
            assert cluster.ended(cluster.start("ingest", str(tmp_path / "text.txt"))) == 0
            until_closed(process, corpus, cluster)
            assert ended(cluster, names) == [0, 0, 0]
            check(process, corpus, steps.expected([*TEXTS, INGESTED]))
        services = dict(zip(("api", "relay", "worker"), names, strict=True))
        lines = {service: log_lines(cluster.log(name)) for service, name in services.items()}
        yield Seen(collector.spans, server.text, lines)


def test_one_trace_from_the_request_to_the_last_task(seen: Seen) -> None:
    """Through API, relay and worker: every parent and link is there, and each task's log lines name request and trace.

    And the worker's profiles come from the process that does the work, and say which task it did; and
    every line of a log is JSON, and its event a name.
    """
    assert unresolved(seen.spans) == []
    for request in ("request-0", "request-1"):
        services = check_trace(seen, request, seen.of(request), "POST /v1/corpora/<corpus>/texts")
        assert services == {"crochet-api", "crochet-relay", "crochet-worker"}
    [command] = [span for span in seen.spans if span.name == "crochet ingest"]
    [request] = {str(line["request"]) for line in seen.lines["worker"] if line.get("trace") == command.trace}
    of_command = [span for span in seen.spans if span.trace == command.trace]
    assert check_trace(seen, request, of_command, "crochet ingest") >= {"crochet-cli", "crochet-worker"}
    later = {span.name for span in seen.of("request-1")}
    assert {f"run/{task}" for task in TASKS} <= later
    assert {"search.engine", "publish search.part", "apply_async/orthos.store"} <= later
    assert not any("health" in span.name for span in seen.spans)
    check_statements(seen.spans)
    check_resource(seen.spans)
    check_map(seen.spans)
    for tag in ("crochet-worker", "crochet-api", "crochet-relay", "ingest,context,remediations,search,orthos"):
        assert tag in seen.profiles
    assert any(task in seen.profiles for task in TASKS)
    events = {str(line["event"]) for lines in seen.lines.values() for line in lines}
    assert events >= {"request", "task_done", "library"}
    assert all(re.fullmatch("[a-z_]+", event) for event in events), events


def check_trace(seen: Seen, request: str, spans: list[Span], name: str) -> set[str]:
    """These are all that a request or command caused; returns the services that had a part in it."""
    [root] = [span for span in spans if not span.parent]
    assert root.name == name
    ran = Counter(span.name.removeprefix("run/") for span in spans if span.name.startswith("run/"))
    lines = [line for line in seen.lines["worker"] if line.get("request") == request]
    assert Counter(line["task"] for line in lines if line["event"] == "task_done") == ran
    assert {line["trace"] for line in lines} == {root.trace}
    assert set(ran) >= TASKS
    return {span.resource["service.name"] for span in spans}


def test_one_trace_from_the_command_to_the_last_task(database: str, tmp_path: Path) -> None:
    """Where `crochet run` does it all: its texts and their work have one origin, a request id that it generates."""
    files = [tmp_path / f"{number}.txt" for number in range(2)]
    for file, body in zip(files, TEXTS, strict=True):
        file.write_text(body)
    with Otlp() as collector:
        settings = Settings.load(database_url=database, otlp_url=collector.url, trace_ratio=1.0)
        running.run(settings, running.Request(list(map(str, files)), "main", {}, None))
        assert telemetry.traceparent() is None
    assert unresolved(collector.spans) == []
    [root] = [span for span in collector.spans if not span.parent]
    assert (root.name, root.resource["service.name"]) == ("crochet run", "crochet-cli")
    assert {span.name for span in collector.spans} >= {f"run/{task}" for task in TASKS}
    assert {span.trace for span in collector.spans} == {root.trace}
    with opened(Settings(), database) as process:
        origins = steps.sql(
            process,
            "SELECT origin->>'request', origin->>'traceparent' FROM texts UNION SELECT "
            "origin->>'request', origin->>'traceparent' FROM work",
        )
    assert len({request for request, _ in origins}) == 1
    assert {str(traceparent).split("-")[1] for _, traceparent in origins} == {root.trace}


def check_statements(spans: list[Span]) -> None:
    """What goes through SQLAlchemy, to the driver itself, and through a cursor in the server: each once, no values."""
    statements = [span.attributes["db.statement"] for span in spans if "db.statement" in span.attributes]
    for part in ("INSERT INTO texts", "INSERT INTO batches", "FROM phrases", "EVAL"):
        assert any(part in statement for statement in statements), part
    assert len({span.id for span in spans}) == len(spans)
    assert not any(TEXTS[0][:8] in statement for statement in statements)


def check_map(spans: list[Span]) -> None:
    """Tempo can draw its service map: it pairs the two ends of a request or a message, and takes what a client calls,
    and sends no spans itself, from the attribute `db.system`.
    """
    by_id = {span.id: span for span in spans}
    edges: set[tuple[str, str]] = set()
    for span in spans:
        service, above = span.resource["service.name"], by_id.get(span.parent)
        if above is not None and (above.kind, span.kind) in (("CLIENT", "SERVER"), ("PRODUCER", "CONSUMER")):
            edges.add((above.resource["service.name"], service))
        if span.kind == "CLIENT" and "db.system" in span.attributes:
            edges.add((service, span.attributes["db.system"]))
    databases = {("crochet-api", "postgresql"), ("crochet-worker", "postgresql"), ("crochet-api", "redis")}
    assert edges >= databases | {("crochet-relay", "crochet-worker")}
    [request] = [span for span in spans if span.name.startswith("POST ") and span.parent == ""][:1]
    assert request.kind == "SERVER"  # it comes from `user`


def check_resource(spans: list[Span]) -> None:
    """Spans say which process of which service they are of."""
    of_worker = next(span.resource for span in spans if span.name == "run/search.part")
    assert of_worker["crochet.queues"] == [
        "ingest",
        "context",
        "remediations",
        "search",
        "orthos",
        "best",
        "maintenance",
    ]
    instances = {(span.resource["service.name"], span.resource["service.instance.id"]) for span in spans}
    assert len({instance for _, instance in instances}) == len(instances) >= 3
    assert all(span.resource["service.version"] for span in spans)


def test_collectors_that_hang_or_are_away_harm_nothing(deploy: Deploy) -> None:  # noqa: F811 - the fixture
    """The work is done, and every process ends with 0 in its time."""
    with Hanging() as collector:
        cluster = deploy(
            CROCHET_OTLP_URL=collector.url,
            CROCHET_TRACE_RATIO="1",
            CROCHET_PYROSCOPE_URL=f"http://{HOST}:{take_port()}",
            CROCHET_API_PORT=str(take_port()),
        )
        with cluster.process() as process:
            corpus = corpus_of(process, Limits())
            names = started(cluster)
            Client(process, cluster).post(TEXTS[0], "request-one")
            until_closed(process, corpus, cluster)
            until(lambda: collector.connections, cluster)
            assert ended(cluster, names) == [0, 0, 0]
            check(process, corpus, steps.expected(TEXTS[:1]))


def test_the_end_does_not_wait_for_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes although the collector still has what was sent to it."""
    monkeypatch.setattr(setup, "END_SECONDS", 0.2)
    with Hanging() as collector:
        telemetry.begin("test", Settings.load(otlp_url=collector.url, trace_ratio=1.0))
        try:
            with telemetry.span("something"):
                assert telemetry.traceparent() is not None
        finally:
            telemetry.end()
        assert ending()  # it is at it, and we are not
        assert telemetry.traceparent() is None
    eventually(lambda: not ending())  # it would log what it could not send into other tests


def ending() -> bool:
    return any(thread.name == "telemetry-end" for thread in threading.enumerate())


def test_a_message_that_is_not_sent_leaves_nothing_open(process: Process) -> None:
    """What is done after it is no part of it: Celery's instrumentation waits for a signal that does not come."""
    with Otlp() as collector, on_broker(f"amqp://guest:guest@{HOST}:{take_port()}//"):
        telemetry.begin("test", Settings.load(otlp_url=collector.url, trace_ratio=1.0))
        try:
            corpus = steps.new_corpus(process)
            steps.accept(corpus, TEXTS[0])
            with telemetry.span("around"):
                before = telemetry.traceparent()
                with pytest.raises(BrokerUnavailable):
                    publish.publish_next(corpus.id)
                assert telemetry.traceparent() == before
        finally:
            telemetry.end()
        spans = {span.name: span for span in collector.spans}
    assert spans["publish ingest.text"].failed
    assert spans["apply_async/ingest.text"].failed
    assert spans["apply_async/ingest.text"].parent == spans["publish ingest.text"].id
    assert unresolved(collector.spans) == []


def test_off_loads_nothing() -> None:
    """Without addresses the libraries are not even loaded, but for what redis-py loads of its own accord."""
    program = (
        "import sys; from crochet_tasks import app, telemetry; from crochet_tasks.cli import accepting, running;"
        "from crochet_tasks.services import relay, worker;"
        "from api import create_app;"
        "from crochet_tasks.settings import Settings; telemetry.begin('x', Settings()); create_app();"
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'opentelemetry.instrumentation', 'pyroscope');"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS, capture_output=True, text=True)
    assert done.stdout == "[]\n"
