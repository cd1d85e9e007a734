"""`crochet smoke` on an API whose work a thread does, does not do, or does wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from crochet_tasks import publish
from crochet_tasks.cli import program, smoke
from crochet_tasks.client import Client
from crochet_tasks.errors import SmokeFailed
from tests.integration.client.conftest import Served
from tests.support import oracle

pytestmark = pytest.mark.integration


@pytest.fixture
def worked(served: Served) -> Iterator[None]:
    """All work is done as it comes."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            publish.publish_all()

    worker = threading.Thread(target=work)
    worker.start()
    yield
    over.set()
    worker.join()


def left(client: Client) -> list[str]:
    return [each.name for each in client.corpora() if each.name.startswith("smoke")]


def test_the_orthos_are_those_of_the_definition() -> None:
    orthos = oracle.closure(list(smoke.TEXTS))
    assert {sides for sides, _ in orthos} == {(2, 2)}
    assert {f"{a} {b} / {c} {d}" for _, (a, b, c, d) in orthos} == smoke.ORTHOS
    assert 0 < len(oracle.closure(list(smoke.TEXTS[:1]))) < len(orthos)


@pytest.mark.usefixtures("worked")
def test_all_is_well(client: Client) -> None:
    said: list[str] = []
    smoke.smoke(client, 60.0, said.append)
    assert said[-2:] == ["all 5 orthos are right", "its corpus is deleted"]
    assert left(client) == []


@pytest.mark.usefixtures("worked")
def test_a_wrong_answer_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "ORTHOS", {*smoke.ORTHOS, "of / more"})
    with pytest.raises(SmokeFailed, match="of / more"):
        smoke.smoke(client, 60.0, lambda _: None)
    assert left(client) == []


def test_what_is_not_done_in_time_is_said(client: Client) -> None:
    with pytest.raises(SmokeFailed, match="version 0 of 1, 1 pieces of work open"):
        smoke.smoke(client, 0.1, lambda _: None)
    assert left(client) == []


def test_what_could_not_be_deleted_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SmokeFailed(problem="no answer")

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(client, "delete_corpus", fails)
        with pytest.raises(SmokeFailed, match="not done in time"):
            smoke.smoke(client, 0.1, said.append)
    (name,) = left(client)
    assert f"corpus '{name}' is left" in said[-1]
    client.delete_corpus(name, confirm=name)


def test_what_is_made_without_an_answer_is_deleted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    create = client.create_corpus

    def lost(*arguments: Any, **options: Any) -> None:
        create(*arguments, **options)
        raise SmokeFailed(problem="no answer")

    monkeypatch.setattr(client, "create_corpus", lost)
    with pytest.raises(SmokeFailed, match="no answer"):
        smoke.smoke(client, 0.1, lambda _: None)
    assert left(client) == []


def test_it_needs_an_api(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.outcome(["smoke"], debug=False) == 2
    assert "CROCHET_URL" in capsys.readouterr().err
