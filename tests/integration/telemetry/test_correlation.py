"""What caused a piece of work goes with it: from the request to the last task, in rows and in log lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from structlog.contextvars import get_contextvars

from crochet_tasks import publish
from crochet_tasks.db import outbox
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation
from crochet_tasks.telemetry.correlation import Origin
from tests.support import steps
from tests.support.api import SETTINGS, Api, made

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Lines(logging.Handler):
    """What was bound when each line was logged, with the line's event and logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append({"event": record.msg, "logger": record.name, **get_contextvars()})

    def of(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    caplog.set_level(logging.INFO)
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def post(api: Api, corpus: str, body: str, request: str, **headers: str) -> None:
    given = {"title": request, "body": body}
    answer = api.write.post(f"/v1/corpora/{corpus}/texts", json=given, headers={"X-Request-ID": request, **headers})
    assert answer.status_code == 202


def requests_of(process: Process, table: str, condition: str = "true") -> set[str]:
    return {str(row[0]) for row in steps.sql(process, f"SELECT origin->>'request' FROM {table} WHERE {condition}")}


def test_all_that_a_request_causes_names_it(api: Api, lines: Lines) -> None:
    """Its text, every piece of work down to the last search, and every line of their tasks; and its trace."""
    corpus = steps.new_corpus(api.process)
    assert api.write.get("/v1/corpora").status_code == 200  # who is known may say that their trace is kept
    lines.lines.clear()
    for body in steps.TEXTS[:2]:  # the second one has batches searched again
        post(api, corpus.name, body, "request-one", traceparent=TRACEPARENT)
        assert get_contextvars() == {}  # nothing of it is left for the thread's next request
        steps.run(corpus)
        assert get_contextvars() == {}
    sent = {"X-Request-ID": "request-one", "traceparent": TRACEPARENT}
    assert api.write.post(f"/v1/corpora/{corpus.name}/best", json={}, headers=sent).status_code == 202
    steps.run(corpus)
    assert requests_of(api.process, "texts") == requests_of(api.process, "work") == {"request-one"}
    traces = steps.sql(api.process, "SELECT DISTINCT origin->>'traceparent' FROM work")
    assert [tuple(row) for row in traces] == [(TRACEPARENT,)]
    done = lines.of("task_done")
    assert {line["task"] for line in done} >= {*publish.TASKS.values(), "orthos.store"}
    assert {(line["request"], line["trace"], line["corpus"]) for line in done} == {("request-one", TRACE, corpus.name)}
    asked = [line for line in lines.of("request") if line["logger"] == "api.access"]
    assert {(line["request"], line["trace"]) for line in asked} == {("request-one", TRACE)}


@pytest.mark.parametrize(("ratio", "sent", "kept"), [(0.0, "01", "00"), (1.0, "00", "01")])
def test_strangers_do_not_say_whether_their_trace_is_kept(process: Process, ratio: float, sent: str, kept: str) -> None:
    """The ratio does, with their trace's id; when their key was good once, they do."""
    api, corpus = made(process, Settings(**SETTINGS, trace_ratio=ratio)), steps.new_corpus(process)
    for body in steps.TEXTS[:2]:
        post(api, corpus.name, body, f"request-{body}"[:12], traceparent=TRACEPARENT[:-2] + sent)
    rows = steps.sql(process, "SELECT origin->>'traceparent' FROM texts ORDER BY id")
    assert [row[0] for row in rows] == [TRACEPARENT[:-2] + each for each in (kept, sent)]


def test_what_strangers_say_of_a_trace_is_dropped_where_it_is_nothing(process: Process) -> None:
    """Other libraries would take up what a later version of the standard may mean."""
    api, corpus = made(process, Settings(**SETTINGS, trace_ratio=0.0)), steps.new_corpus(process)
    post(api, corpus.name, steps.TEXTS[0], "request-one", traceparent=f"01{TRACEPARENT[2:]}-more")
    assert steps.sql(process, "SELECT origin->>'traceparent' FROM texts") == [(None,)]


def test_lines_say_what_they_are_about(api: Api, lines: Lines) -> None:
    """Text, version, kind, work and attempt, as far as a task has them."""
    corpus = steps.new_corpus(api.process)
    items = []
    for number, body in enumerate(steps.TEXTS[:2]):
        post(api, corpus.name, body, f"request-{number}")
        items += steps.run(corpus)
    done = lines.of("task_done")
    ingested = {str(item.id) for item in items if item.kind == "ingest"}
    assert {line["work"] for line in done if line["task"] == "ingest.text"} == ingested
    by_task = {str(line["task"]): line for line in done}
    assert by_task["ingest.text"]["text"] == by_task["context.version"]["text"] == "text-2"
    assert {line["kind"] for line in done} == {"ingest", "context", "remediations", "search"}
    assert {line["version"] for line in done if line["kind"] in ("remediations", "search")} == {1, 2}
    assert {line["attempt"] for line in done} == {1}


def test_what_a_later_text_makes_due_has_its_origin(api: Api) -> None:
    """Each window is searched for the request that brought its text."""
    corpus = steps.new_corpus(api.process)
    for number, body in enumerate(steps.TEXTS):
        post(api, corpus.name, body, f"request-{number}")
        steps.run(corpus)
    assert requests_of(api.process, "work", "kind = 'search' AND version = 2") == {"request-1"}
    assert requests_of(api.process, "work", "kind = 'search' AND version = 3") == {"request-2"}


def test_who_gives_a_text_again_is_its_origin(api: Api) -> None:
    """A cancelled text that is accepted again, and its work, have the new request as origin."""
    corpus = steps.new_corpus(api.process)
    post(api, corpus.name, "a b", "request-one")
    assert api.write.post(f"/v1/corpora/{corpus.name}/texts/text-1/cancel").status_code == 200
    post(api, corpus.name, "a b", "request-two")
    assert requests_of(api.process, "texts") == requests_of(api.process, "work") == {"request-two"}


def test_origin_is_no_part_of_what_work_is(process: Process) -> None:
    """The same work, asked for by another request, is the same: the first one's."""
    corpus = steps.new_corpus(process)
    for request in ("request-one", "request-two"):
        correlation.begin(request, None)
        with process.database.transaction() as connection:
            outbox.add(connection, [outbox.search(corpus.id, 0, 1, (0, 5))])
        correlation.end()
    assert requests_of(process, "work") == {"request-one"}


def test_what_goes_with_a_message_is_what_caused_it() -> None:
    """Nothing of the sender's context: neither its request nor its task; the origins' requests are named."""
    correlation.begin("of-the-sender", TRACEPARENT)
    other = TRACEPARENT.replace("b7ad", "b7ae")
    causes = [None, Origin("one", other), Origin("two", None), Origin("one", other)]
    with correlation.published("search.part", causes, kind="search", version=7):
        headers = correlation.headers()
        assert correlation.current() == Origin("one", other)
    assert correlation.current() == Origin("of-the-sender", TRACEPARENT)
    correlation.end()
    assert headers == {
        "crochet": {"request": "one", "requests": "one two", "kind": "search", "version": 7},
        "traceparent": other,
    }
    with correlation.received(headers):
        assert correlation.current() == Origin("one", other)
        assert get_contextvars() == {**headers["crochet"], "trace": TRACE}
    assert correlation.current() is None


@pytest.mark.parametrize("headers", [{}, {"crochet": "x", "traceparent": 7}, {"traceparent": "00-0-0-01\n"}])
def test_a_message_of_another_program_has_no_origin(headers: dict[str, object]) -> None:
    """What cannot be read is left out, and the work is done."""
    with correlation.received(headers):
        assert correlation.current() is None
