"""What operators have in the console, and others have not: queues, workers, tenants; keys, the log, links and plots."""

from __future__ import annotations

import csv
import datetime as dt
import re
from html import unescape
from typing import Any

import pytest

import web
from crochet_tasks.access import keys
from crochet_tasks.broker import queues as broker
from crochet_tasks.db import dead_letters
from crochet_tasks.reporting import queue_depths, reports, worker_use
from crochet_tasks.reporting.queue_depths import Depths
from crochet_tasks.reporting.reports import Queues
from crochet_tasks.reporting.worker_use import WorkerSeen
from crochet_tasks.schemas.reports import QueueStatus
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support import steps
from tests.support.api import Api
from tests.support.pages import Visitor, code
from web import paging

pytestmark = pytest.mark.integration
FOR_OPERATORS = ("queues", "dead", "tenants")
KEY = re.compile(r"crk_[a-z2-7]{10}_[A-Za-z0-9_-]{43}")


def lines(api: Api, what: str) -> list[tuple[object, ...]]:
    statement = "SELECT tenants.name, key, address, request, details FROM security_log LEFT JOIN tenants "
    return steps.sql(
        api.process, f"{statement} ON tenants.id = tenant WHERE what = :what ORDER BY security_log.id", what=what
    )


# ── who is an operator ──────────────────────────────────────────────────────────────────────────


def test_the_setting_says_whose_admins_are_operators(api: Api) -> None:
    for named, operators in (("default", "admin"), ("other", "stranger"), ("-", None)):
        settings = Settings(**apis.SETTINGS, operator_tenant=named)
        again = apis.made_again(api.process, settings, web.create_app)
        again.keys = api.keys
        for key in ("admin", "stranger", "write"):
            visitor = Visitor(again, key)
            links = visitor.links("/console").values()
            for name in FOR_OPERATORS:
                answer = visitor.get(f"/console/{name}")
                found = (answer.status_code, code(answer), f"/console/{name}" in links)
                refusal = "forbidden" if key == "write" else "operator_needed"
                assert found == ((200, "", True) if key == operators else (403, refusal, False))
    assert len(lines(api, "refused.operator_needed")) > 0


def test_flower_and_grafana_are_linked_for_operators(api: Api) -> None:
    urls: dict[str, Any] = {"flower_url": "http://127.0.0.1:5555", "grafana_url": "https://grafana.example/d/1"}
    again = apis.made_again(api.process, Settings(**apis.SETTINGS, **urls), web.create_app)
    again.keys = api.keys
    found = Visitor(again, "admin").links("/console")
    assert {name: found[name.title()] for name in ("flower", "grafana")} == {
        name.partition("_")[0]: address for name, address in urls.items()
    }
    assert not set(urls.values()) & set(Visitor(again, "stranger").links("/console").values())


# ── queues and workers ──────────────────────────────────────────────────────────────────────────


def test_queues_and_workers_are_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    depths = {name: QueueStatus(ready=7000 + place, consumers=2) for place, name in enumerate(broker.WORK)}
    depths |= {broker.dead(name): QueueStatus(ready=0, consumers=1) for name in broker.WORK}
    depths[broker.dead("search")] = QueueStatus(ready=42, consumers=0)
    monkeypatch.setattr(reports, "queues_of", lambda _: Queues("answers", None, depths))
    seen = [WorkerSeen("one@<host>", 4, 0.5, 3), WorkerSeen("two@host", 1, 0.0, 300)]
    monkeypatch.setattr(worker_use, "seen", lambda *_: seen)
    page = Visitor(api, "admin").get("/console/queues").text
    rows = {row[0]: row[1:] for row in table(page)}
    for place, name in enumerate(broker.WORK):
        assert rows[name][:2] == [f"7\u202f00{place}", "2"]
    assert rows["search"][3] == "42"
    assert rows["one@<host>"] == ["4", "50 %", "3\u202fs ago"]
    assert rows["two@host"] == ["1", "0 %", "5\u202fmin ago"]


def test_how_many_messages_waited_lately(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a plot of all queues, a line for each, and data; only for operators."""
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    waited: list[dict[str, int] | None] = [None, {"search": 3, "orthos": 1}, {"search": 0, "orthos": 15}]
    history = [Depths(at + dt.timedelta(seconds=30 * place), each) for place, each in enumerate(waited)]
    monkeypatch.setattr(queue_depths, "read", lambda *_: history)
    operator = Visitor(api, "admin")
    page = unescape(operator.get("/console/queues").text)
    assert "Messages waiting in all queues in the last 15 minutes, up to 20; now 15" in page
    assert 'aria-label="up to 3"' in page
    assert 'href="/console/depths.csv"' in page
    rows = list(csv.DictReader(operator.get("/console/depths.csv").text.splitlines()))
    assert [(row["search"], row["orthos"], row["context"]) for row in rows] == [
        ("", "", ""),
        ("3", "1", ""),
        ("0", "15", ""),
    ]
    assert [dt.datetime.fromisoformat(row["begins_at"]) for row in rows] == [each.begins_at for each in history]
    assert Visitor(api, "stranger").get("/console/depths.csv").status_code == 403
    monkeypatch.setattr(queue_depths, "read", lambda *_: None)
    assert "CROCHET_REDIS_URL" in operator.get("/console/queues").text
    assert operator.get("/console/depths.csv").text.splitlines() == [",".join(["begins_at", *broker.WORK])]


def table(page: str) -> list[list[str]]:
    """The cells of all rows of all tables."""
    rows = re.findall("<tr>(.*?)</tr>", page, re.DOTALL)
    cells = (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows)
    return [[unescape(re.sub("<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_what_does_not_answer_is_unknown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There is no broker" in Visitor(api, "admin").get("/console/queues").text
    monkeypatch.setattr(reports, "queues_of", lambda _: Queues("unknown", "it is away", {}))
    page = Visitor(api, "admin").get("/console/queues").text
    assert "it is away" in page
    assert "unknown" in page


def test_dead_letters_are_paged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AT_ONCE", 2)
    with api.process.database.transaction() as connection:
        for number in range(3):
            letter = {"reason": f"reason {number}", "task": None, "message": None, "body": b"", "died_at": "2026-01-01"}
            dead_letters.add(connection, queue="search", **letter)
    operator = Visitor(api, "admin")
    first = operator.get("/console/dead").text
    assert [f"reason {number}" in first for number in range(3)] == [False, True, True]
    older = operator.links("/console/dead")["Older"]
    assert [f"reason {number}" in operator.get(older).text for number in range(3)] == [True, False, False]
    assert operator.get(operator.links(older)["Newer"]).text.count("reason") == 2


# ── plots ───────────────────────────────────────────────────────────────────────────────────────


def test_the_data_of_each_plot_is_a_table(api: Api) -> None:
    corpus = steps.new_corpus(api.process)
    steps.accept(corpus, "a b, c d, a c, b d")
    steps.run(corpus)
    visitor = Visitor(api, "admin")
    page = visitor.get("/console").text
    assert page.count('role="img"') == 2
    for name, column, statement in (
        ("work", "work", "SELECT count(*) FROM work WHERE state = 'done'"),
        ("orthos", "orthos", "SELECT sum(orthos) FROM counts"),
    ):
        assert f'href="/console/{name}.csv"' in page
        answer = visitor.get(f"/console/{name}.csv")
        assert answer.mimetype == "text/csv"
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert [(sum(int(row[column]) for row in rows),)] == steps.sql(api.process, statement)
        others = Visitor(api, "stranger").get(f"/console/{name}.csv").text
        assert {row[column] for row in csv.DictReader(others.splitlines())} == {"0"}
    assert visitor.get("/console/nothing.csv").status_code == 404


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_made_and_shown_once(api: Api) -> None:
    """For the own tenant, whatever the form says; with its line in the log."""
    stranger = Visitor(api, "stranger")
    sent = {"name": "<b>", "scope": "write", "days": "30", "tenant": "default", "tier": "high"}
    made = stranger.post("/console/keys", sent)
    assert made.headers["Cache-Control"] == "no-store"
    (key,) = KEY.findall(made.text)
    assert api.with_key(key).post("/v1/corpora", json={"name": "x"}).status_code == 201
    prefix = key.split("_")[1]
    (line,) = (each for each in keys.listed(api.process.database) if each.key == prefix)
    assert (line.name, line.tenant, line.scopes, line.tier) == ("<b>", "other", ["write"], "standard")
    assert line.expires_at is not None
    assert (line.expires_at - line.created_at).days in (29, 30)
    listed = stranger.get("/console/keys").text
    assert key not in listed
    assert "&lt;b&gt;" in listed
    logged = lines(api, "key.created")[-1]
    assert logged[:2] == ("other", prefix)
    assert None not in logged
    assert isinstance(logged[4], dict)
    assert logged[4]["by"] == api.keys["stranger"].split("_")[1]


def test_a_form_that_is_sent_twice_makes_one_key(api: Api) -> None:
    """And says how to get at a key that was not seen; another form, or another caller with its word, makes another."""
    admin, word = Visitor(api, "admin"), r'name="once" value="([^"]+)"'
    (first,), (second,) = (re.findall(word, admin.get("/console/keys").text) for _ in range(2))
    assert first != second
    sent = {"name": "twice", "scope": "read", "tenant": "default", "once": first}
    (key,) = KEY.findall(admin.post("/console/keys", sent).text)
    again = admin.post("/console/keys", sent)
    assert (again.status_code, KEY.findall(again.text)) == (409, [])
    assert f'href="/console/keys/{key.split("_")[1]}/rotate"' in again.text
    assert [each.name for each in keys.listed(api.process.database)].count("twice") == 1
    for visitor, once in ((admin, second), (Visitor(api, "stranger"), first)):
        assert KEY.findall(visitor.post("/console/keys", {**sent, "once": once}).text)


def test_operators_make_keys_of_any_tenant(api: Api) -> None:
    sent = {"name": "x", "scope": "read", "tenant": "other", "tier": "high"}
    (key,) = KEY.findall(Visitor(api, "admin").post("/console/keys", sent).text)
    (line,) = (each for each in keys.listed(api.process.database, "other") if each.key == key.split("_")[1])
    assert (line.tier, line.expires_at) == ("high", None)


def test_a_wrong_form_makes_no_key_and_says_why(api: Api) -> None:
    before = len(keys.listed(api.process.database))
    admin = Visitor(api, "admin")
    for wrong in (
        {"name": ""},
        {"name": "\x07"},
        {"scope": "all"},
        {"days": "-1"},
        {"days": "99999"},
        {"tenant": "no"},
    ):
        answer = admin.post("/console/keys", {"name": "x", "scope": "read", "tenant": "default", **wrong})
        assert (answer.status_code, 'role="alert"' in answer.text) == (422, True), wrong
    assert len(keys.listed(api.process.database)) == before


def test_a_key_is_rotated_and_revoked(api: Api) -> None:
    """After a page that says what it touches, which changes nothing."""
    admin = Visitor(api, "admin")
    old = api.keys["write"].split("_")[1]
    assert "Rotate" in admin.get(f"/console/keys/{old}/rotate").text
    assert api.write.get("/v1/corpora").status_code == 200
    assert admin.post(f"/console/keys/{old}/rotate", {"grace": "5"}).status_code == 422
    rotated = admin.post(f"/console/keys/{old}/rotate", {"grace": "0"})
    assert rotated.headers["Cache-Control"] == "no-store"
    (key,) = KEY.findall(rotated.text)
    assert (api.write.get("/v1/corpora").status_code, api.with_key(key).get("/v1/corpora").status_code) == (401, 200)
    new = key.split("_")[1]
    assert admin.post(f"/console/keys/{new}/revoke", {}).status_code == 200
    assert api.with_key(key).get("/v1/corpora").status_code == 401
    assert admin.post(f"/console/keys/{new}/revoke", {}).status_code == 409
    for what, prefix in (("key.rotated", old), ("key.revoked", new)):
        ((tenant, named, address, request, _),) = lines(api, what)
        assert (tenant, named) == ("default", prefix)
        assert None not in (address, request)


def test_a_key_of_another_tenant_is_not_there(api: Api) -> None:
    """For who is no operator."""
    stranger = Visitor(api, "stranger")
    mine = api.keys["read"].split("_")[1]
    assert mine not in stranger.get("/console/keys").text
    for act in ("rotate", "revoke"):
        for answer in (
            stranger.get(f"/console/keys/{mine}/{act}"),
            stranger.post(f"/console/keys/{mine}/{act}", {"grace": "0"}),
        ):
            assert (answer.status_code, code(answer)) == (404, "key_unknown")
    assert api.read.get("/v1/corpora").status_code == 200
    theirs = api.keys["stranger"].split("_")[1]
    assert Visitor(api, "admin").post(f"/console/keys/{theirs}/revoke", {}).status_code == 200
    assert stranger.get("/console/keys").status_code == 303  # its session has ended


# ── tenants, the log ────────────────────────────────────────────────────────────────────────────


def test_a_tenant_is_made_once(api: Api) -> None:
    admin = Visitor(api, "admin")
    assert admin.post("/console/tenants", {"name": "new-one"}).status_code == 303
    assert ["new-one", "0", "0"] in [row[:3] for row in table(admin.get("/console/tenants").text)]
    for wrong in ("new-one", "", "a b"):
        answer = admin.post("/console/tenants", {"name": wrong})
        assert (answer.status_code, 'role="alert"' in answer.text) == (422, True)
    assert Visitor(api, "stranger").post("/console/tenants", {"name": "x"}).status_code == 403
    ((tenant, _, address, request, details),) = lines(api, "tenant.created")
    assert (tenant, details) == ("default", {"name": "new-one"})
    assert None not in (address, request)


def has(page: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", page) is not None


def test_operators_look_at_one_tenant(api: Api) -> None:
    """Others see their own, whatever they ask for."""
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    api.stranger.post("/v1/corpora/theirs/texts", json={"body": "a b"})
    api.admin.post("/v1/corpora", json={"name": "mine"})
    api.admin.post("/v1/corpora/mine/texts", json={"body": "a b"})
    prefixes = {name: api.keys[name].split("_")[1] for name in ("stranger", "admin")}
    admin, stranger = Visitor(api, "admin"), Visitor(api, "stranger")
    links = admin.links("/console/tenants")
    for page, own, foreign in (
        ("Work", "theirs", "mine"),
        ("Keys", prefixes["stranger"], prefixes["admin"]),
        ("Log", "theirs", "mine"),
    ):
        text = admin.get(links[f"{page} of other"]).text
        assert f"{page} of tenant other" in text
        assert [has(text, each) for each in (own, foreign)] == [True, False]
        address = links[f"{page} of default"]
        assert has(admin.get(address).text, foreign)
        text = stranger.get(address).text
        assert [has(text, each) for each in (own, foreign)] == [True, False]
    assert admin.get("/console/work", tenant="nobody").status_code == 404


def test_the_log_is_of_the_own_tenant_and_paged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AT_ONCE", 3)
    stranger, admin = Visitor(api, "stranger"), Visitor(api, "admin")
    stranger.get("/console/log")
    for number in range(4):
        api.stranger.post("/v1/corpora", json={"name": f"theirs-{number}"})
        api.admin.post("/v1/corpora", json={"name": f"mine-{number}"})
    seen = []
    address = "/console/log?about=corpus"
    while address:
        page = stranger.get(address).text
        assert "mine-" not in page
        seen.append(re.findall(r"theirs-\d", page))
        address = stranger.links(address).get("Older", "")
    assert seen == [["theirs-3", "theirs-2", "theirs-1"], ["theirs-0"]]
    both = admin.get("/console/log?about=corpus").text
    assert re.findall(r"(?:mine|theirs)-\d", both) == ["mine-3", "theirs-3", "mine-2"]
    prefix = api.keys["stranger"].split("_")[1]
    assert "mine-" not in admin.get(f"/console/log?about=corpus&key={prefix}").text
