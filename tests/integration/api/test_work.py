"""Work and status over HTTP: what is open, what failed, what its owner does about it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.failures import record
from crochet_tasks.errors import MessageDied
from tests.support import steps
from tests.support.api import Api
from tests.support.failing_work import with_bug

pytestmark = pytest.mark.integration

URL = "/v1/corpora/genesis"


def work(api: Api, **query: Any) -> list[dict[str, Any]]:
    answer = api.read.get(f"{URL}/work", query_string=query)
    assert answer.status_code == 200, answer.data
    found: list[dict[str, Any]] = answer.get_json()["work"]
    return found


def test_work_in_every_state(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open or failed, or of one state or kind; bounded, and it says how much more there is."""
    with_bug(corpus, monkeypatch, "search.part")
    steps.accept(corpus, "another text")
    assert [(line["kind"], line["state"]) for line in work(api)] == [("search", "failed"), ("ingest", "ready")]
    (failed,) = work(api, state="failed")
    assert failed["error"] == {"code": "internal", "message": "Something went wrong."}
    assert [line["kind"] for line in work(api, state="open")] == ["ingest"]
    assert work(api, state="ready") == work(api, state="open")
    assert [work(api, state=state) for state in ("held", "published", "waiting", "parked")] == [[]] * 4
    assert {line["state"] for line in work(api, state="done")} == {"done"}
    assert [line["kind"] for line in work(api, kind="context", state="done")] == ["context"]
    bounded = api.read.get(f"{URL}/work?limit=1").get_json()
    assert (len(bounded["work"]), bounded["more"], bounded["version"], bounded["at_least"]) == (1, 1, 1, False)


def test_work_is_not_counted_without_end(
    api: Api,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much there is: then the answer says that it is more. What ended last comes first."""
    monkeypatch.setattr("crochet_tasks.reporting.statistics.COUNTED", 5)
    steps.ingest_all(corpus, steps.TEXTS)
    found = api.read.get(f"{URL}/work?state=done&limit=2").get_json()
    assert (len(found["work"]), found["more"], found["at_least"]) == (2, 3, True)
    ended = [line["finished_at"] for line in work(api, state="done")]
    assert len(ended) > 5
    assert ended == sorted(ended, reverse=True)
    status = api.read.get(f"{URL}/status").get_json()
    assert (status["work"], status["at_least"], status["closed"]) == ({"open": 0, "done": 5, "failed": 0}, True, True)


def test_failed_work_is_retried(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is done; what has not failed cannot be. It takes an administrator, and is in the security log."""
    with_bug(corpus, monkeypatch, "search.part")
    (failed,) = work(api)
    api.problem(api.write.post(f"{URL}/work/{failed['id']}/retry"), "forbidden", 403)
    api.problem(api.admin.post(f"{URL}/work/{failed['id']}/cancel"), "work_not_cancellable", 409)
    again = api.admin.post(f"{URL}/work/{failed['id']}/retry")
    assert (again.status_code, again.get_json()["changed"][0]["state"]) == (200, "ready")
    api.problem(api.admin.post(f"{URL}/work/{failed['id']}/retry"), "work_not_failed", 409)
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[:1])
    assert ("work.retried",) in steps.sql(api.process, "SELECT what FROM security_log")


def test_a_text_is_cancelled_and_retried_by_its_work(api: Api, corpus: Corpus) -> None:
    """By either name."""
    steps.accept(corpus, *steps.TEXTS[:1])
    (line,) = work(api)
    cancelled = api.admin.post(f"{URL}/work/{line['id']}/cancel").get_json()["changed"]
    assert [(each["id"], each["state"]) for each in cancelled] == [("text-1", "cancelled")]
    assert api.admin.post(f"{URL}/work/text-1/retry").get_json()["changed"][0]["state"] == "accepted"
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[:1])


def test_work_whose_message_died(api: Api, corpus: Corpus) -> None:
    """It is the `dead` among the failed."""
    steps.accept(corpus, *steps.TEXTS[:1])
    (line,) = work(api)
    assert work(api, state="dead") == []
    (item,) = steps.sql(api.process, "SELECT id FROM work")
    settings = api.process.settings.model_copy(update={"max_attempts": 1})
    record(api.process.database, settings, corpus.id, [item[0]], MessageDied(reason="maxlen"))  # type: ignore[list-item]
    (dead,) = work(api, state="dead")
    assert (dead["id"], dead["state"], dead["error"]["code"]) == (line["id"], "failed", "message_died")
    assert dead["error"]["message"] == "A service that is needed does not answer."  # not the broker's message


@pytest.mark.parametrize("name", ["text-9", "dead-1", "abcd", "0" * 32, "00000000-0000-0000-0000-000000000000", "x%00"])
def test_work_that_there_is_not(api: Api, corpus: Corpus, name: str) -> None:
    """Names are whole here: nothing is found by its beginning."""
    steps.accept(corpus, *steps.TEXTS[:1])
    for verb in ("retry", "cancel"):
        answer = api.admin.post(f"{URL}/work/{name}/{verb}")
        assert (answer.status_code, answer.get_json()["code"]) in [(404, "not_found"), (422, "invalid_request")]


def test_how_far_a_corpus_is(api: Api, corpus: Corpus) -> None:
    """All there is, and how fast it grew in the last minute, in any process."""
    steps.accept(corpus, *steps.TEXTS)
    before = api.read.get(f"{URL}/status").get_json()
    assert (before["closed"], before["texts"], before["work"]["open"]) == (False, {"accepted": 3}, 3)
    steps.run(corpus)
    after = api.read.get(f"{URL}/status").get_json()
    assert (after["closed"], after["texts"], after["version"]) == (True, {"current": 3}, 3)
    assert after["total"] == sum(steps.expected(steps.TEXTS).values())
    assert after["rate"] == after["statistics"]["paces"][0]["orthos_per_second"] > 0
    assert after["spent"] is False


def test_how_many_orthos_a_corpus_holds(api: Api, corpus: Corpus) -> None:
    """Of its version, stored or not; made once, and not sent again."""
    steps.sql(api.process, "UPDATE corpora SET budget = 5")
    nothing = api.read.get(f"{URL}/estimate").get_json()
    assert (nothing["version"], nothing["orthos"], nothing["exact"], nothing["shapes"]) == (0, 0, True, {})
    steps.ingest_all(corpus, steps.TEXTS)
    expected = steps.expected(steps.TEXTS)
    answer = api.read.get(f"{URL}/estimate")
    found = answer.get_json()
    assert (answer.status_code, answer.headers["X-Crochet-Version"]) == (200, "3")
    assert (found["orthos"], found["low"], found["high"], found["exact"]) == (*[expected.total()] * 3, True)
    assert {shape: amount["orthos"] for shape, amount in found["shapes"].items()} == Counter(
        "x".join(map(str, sides)) for sides, _ in expected
    )
    assert found["bytes"] > expected.total()
    assert (found["budget"], found["spent"]) == (5, True)
    assert found["stored"] == sum(steps.stored(api.process, corpus).values()) < expected.total()
    again = api.read.get(f"{URL}/estimate", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    steps.sql(api.process, "UPDATE corpora SET budget = NULL, revision = revision + 1")
    steps.run(corpus)
    later = api.read.get(f"{URL}/estimate", headers={"If-None-Match": answer.headers["ETag"]})
    assert (later.status_code, later.get_json()["stored"]) == (200, expected.total())
