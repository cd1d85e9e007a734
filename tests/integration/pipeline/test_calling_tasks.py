"""Tasks called by people: `ingest.accept` is for them, the steps of the pipeline are not."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import celery
import pytest
from celery.result import allow_join_result

from crochet_tasks import context, ingest, orthos, publish, search
from crochet_tasks.app import app, probe
from crochet_tasks.db import corpora
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError, TextHasNul, TextWithoutWords, WrongCall
from tests.support import steps

pytestmark = pytest.mark.integration

BODY = steps.TEXTS[0]


def test_a_text_is_accepted_as_by_post(process: Process) -> None:
    """The result says what POST answers; the same text again is the same one; what is published closes the corpus."""
    with allow_join_result():  # a worker thread of an earlier test leaves Celery's guard against waiting in tasks on
        first = ingest.accept.delay(corpus="harbour", title="one", body=BODY).get()
        again = ingest.accept.delay(corpus="harbour", body=BODY).get()
    assert (first["state"], first["title"], again["id"]) == ("accepted", "one", first["id"])
    publish.publish_all()
    with process.database.transaction() as connection:
        corpus = corpora.named(connection, "harbour")
    assert steps.stored(process, corpus) == steps.expected([BODY])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"corpus": "harbour", "title": "one", "body": 7}, WrongCall),
        ({"corpus": "harbour", "title": None, "body": BODY}, WrongCall),
        ({"corpus": "harbour", "title": "", "body": BODY}, WrongCall),
        ({"corpus": "harbour", "title": "t" * 201, "body": BODY}, WrongCall),
        ({"corpus": "harbour", "title": "red\x1b[31m", "body": BODY}, WrongCall),
        ({"corpus": "harbour", "title": "one", "body": "1, 2, 3"}, TextWithoutWords),
        ({"corpus": "harbour", "title": "one", "body": "the sea\0"}, TextHasNul),
        ({"corpus": "no such/name", "title": "one", "body": BODY}, CrochetError),
        ({"corpus": "harbour", "title": "one"}, TypeError),
        ({"corpus": "harbour", "title": "one", "body": BODY, "colour": "red"}, TypeError),
    ],
)
@pytest.mark.parametrize("eager", [True, False])
def test_wrong_arguments_fail_where_the_task_is_called(
    process: Process, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], error: type[Exception], eager: bool
) -> None:
    """Nothing is sent and nothing stored, with a broker or eagerly."""
    monkeypatch.setitem(app.conf, "task_always_eager", eager)
    with pytest.raises(error):
        ingest.accept.delay(**arguments)
    assert steps.sql(process, "SELECT FROM texts") == []


def test_a_message_that_delay_has_not_checked_is_refused_in_the_worker(process: Process) -> None:
    """Programs in other languages send messages, too."""
    with pytest.raises(WrongCall, match="body is of type int"):
        ingest.accept.run(corpus="harbour", title="one", body=7)
    assert steps.sql(process, "SELECT FROM corpora") == []


def test_a_text_needs_no_title(process: Process) -> None:
    """As one that is posted."""
    with allow_join_result():
        assert ingest.accept.delay(corpus="harbour", body=BODY).get()["title"] == "untitled"


def test_arguments_without_names_are_refused() -> None:
    """`accept(corpus, body)` and `accept(corpus, title, body)` would take one for another."""
    with pytest.raises(WrongCall, match=r"ingest\.accept takes its arguments by name: corpus, body, title"):
        ingest.accept.delay("harbour", "one", BODY)


@pytest.mark.parametrize("task", [ingest.ingest, context.version, search.part, orthos.store])
@pytest.mark.parametrize(
    "arguments", [(), ("text",), ({},), ({"corpus": 1, "work": "no id"},), ({"corpus": 1, "works": []},), (1, 2)]
)
@pytest.mark.parametrize("eager", [True, False])
def test_a_step_called_by_hand_says_what_to_call(
    monkeypatch: pytest.MonkeyPatch, task: object, arguments: tuple[object, ...], eager: bool
) -> None:
    """At once, in the caller: no message is sent that could only become a dead letter."""
    monkeypatch.setitem(app.conf, "task_always_eager", eager)
    with pytest.raises(WrongCall, match=r"crochet_tasks\.ingest\.accept"):
        task.delay(*arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("delay", [{"countdown": 60}, {"eta": datetime.now(UTC) + timedelta(hours=1)}])
@pytest.mark.parametrize("task", [ingest.accept, search.part, probe])
def test_no_task_is_called_with_a_delay(
    monkeypatch: pytest.MonkeyPatch, task: celery.Task, delay: dict[str, object]
) -> None:
    """Until then its message would hold a place in a worker: as many as there are processes stop it."""
    monkeypatch.setattr(type(app), "send_task", lambda *_, **__: pytest.fail("sent"))
    monkeypatch.setitem(app.conf, "task_always_eager", False)
    payload = [{"corpus": 1, "work": str(uuid.uuid4())}] if task is search.part else []
    kwargs = {"corpus": "harbour", "body": BODY} if task is ingest.accept else {}
    with pytest.raises(WrongCall, match="cannot be delayed"):
        task.apply_async(payload, kwargs, **delay)


def test_the_body_of_a_text_is_shown_nowhere(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and Flower get the corpus, the title and the length."""
    sent: dict[str, object] = {}
    monkeypatch.setattr(type(app), "send_task", lambda *_, **options: sent.update(options))
    monkeypatch.setitem(app.conf, "task_always_eager", False)
    ingest.accept.delay(corpus="harbour", title="one", body=BODY)
    assert sent["kwargsrepr"] == f"{{corpus: 'harbour', title: 'one', body: <{len(BODY)} characters>}}"
