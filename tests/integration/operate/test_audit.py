"""Every change is recorded with who made it; and a change of the record is detected."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from crochet_tasks.db import audit, retention
from crochet_tasks.db.audit import AuditFilter
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.retention import DAY, RULES
from crochet_tasks.operate import cancelling
from crochet_tasks.operate.sealing import Sealer
from crochet_tasks.schemas.acting import acting
from crochet_tasks.schemas.reports import AuditLine
from tests.support import steps
from tests.support.api import Api
from tests.support.failing_work import accepted
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


def lines(process: Process, **which: Any) -> list[AuditLine]:
    with process.database.snapshot() as connection:
        return audit.page(connection, AuditFilter(**which), None, 1000)[0][::-1]


def sealed(process: Process) -> Sealer:
    """All rows are sealed."""
    sealer = Sealer(process.database)
    sealer.seal(now=True)
    while sealer.seal(now=True):
        pass
    return sealer


def problems(process: Process, source: str = "audit") -> list[str]:
    found: list[str] = []
    with process.database.snapshot() as connection:
        audit.verify(connection, source, found.append)
    return found


# ── who did what ────────────────────────────────────────────────────────────────────────────────


def test_changes_by_the_api_say_who_what_and_from_where(api: Api) -> None:
    """Of a corpus, a text and its work, before and after; of the tenant's own only, and for administrators."""
    path = "/v1/corpora/harbour"
    api.write.post("/v1/corpora", json={"name": "harbour"})
    headers = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    api.write.patch(path, json={"budget": 7, "paused": True}, headers={**headers, "X-Request-ID": "r" * 32})
    posted = api.write.post(f"{path}/texts", json={"body": steps.TEXTS[0]}).json
    assert posted is not None
    api.write.post(f"{path}/texts/{posted['id']}/cancel")
    key = api.keys["write"].split("_")[1]
    answer = api.admin.get("/v1/audit", query_string={"corpus": "harbour"})
    assert answer.status_code == 200
    assert answer.json is not None
    found = answer.json["lines"][::-1]
    assert [each["what"] for each in found] == [
        *("corpus.created", "corpus.paused", "text.accepted", "work.open", "text.cancelled", "work.cancelled")
    ]
    assert {each["by"]["key"] for each in found} == {key}
    assert {(each["by"]["via"], each["by"]["address"]) for each in found} == {("api", "127.0.0.1")}
    paused = found[1]
    assert paused["after"]["budget"] == 7
    assert paused["before"]["paused_at"] is None
    assert paused["after"]["paused_at"]
    assert found[4]["before"]["state"] == "accepted"
    of_it = {"subject": f"text {posted['id'][5:]}", "by": key, "limit": 1}
    of_text = api.admin.get("/v1/audit", query_string=of_it).json
    assert of_text is not None
    assert [each["what"] for each in of_text["lines"]] == ["text.cancelled"]
    older = api.admin.get("/v1/audit", query_string={**of_it, "cursor": of_text["next_cursor"]}).json
    assert older is not None
    assert [each["what"] for each in older["lines"]] == ["text.accepted"]
    stranger = api.stranger.get("/v1/audit").json
    assert stranger is not None
    assert not [each for each in stranger["lines"] if each["corpus"]]
    assert api.write.get("/v1/audit").status_code == 403
    assert acting.get() is None


def test_changes_by_other_ways_say_so(process: Process, corpus: Corpus) -> None:
    """A command, the pipeline itself, and a program that is none of ours."""
    token = acting.set({"via": "command", "user": "ann", "command": "work"})
    try:
        (name,) = accepted(corpus, steps.TEXTS[0])
        cancelling.cancel(process, [name])
    finally:
        acting.reset(token)
    accepted(corpus, steps.TEXTS[1])
    steps.run(corpus)
    with process.database.transaction() as connection:
        connection.execute(text("SET LOCAL application_name = 'psql'"))
        connection.execute(text("UPDATE corpora SET budget = 9 WHERE id = :id"), {"id": corpus.id})
    found = lines(process, corpus=corpus.name)
    by_ann = [each.what for each in found if (each.by or {}).get("user") == "ann"]
    assert by_ann == ["text.accepted", "work.open", "text.cancelled", "work.cancelled"]
    assert [each.what for each in lines(process, corpus=corpus.name, by="ann")] == by_ann
    assert next(each.by for each in found if each.what == "work.done") is None
    (by_hand,) = lines(process, corpus=corpus.name, what="corpus.changed")
    assert by_hand.by is not None
    assert (by_hand.by["via"], by_hand.by["program"]) == ("sql", "psql")
    assert (by_hand.before or {})["budget"] is None
    assert (by_hand.after or {})["budget"] == 9


# ── seals ───────────────────────────────────────────────────────────────────────────────────────

TAMPERED = {
    "changed": ("UPDATE audit SET who = 'nobody' WHERE id = :id", "row {id} is not the one that was sealed"),
    "deleted": ("DELETE FROM audit WHERE id = :id", "1 rows were deleted"),
    "added": (
        "INSERT INTO audit (id, what, subject) OVERRIDING SYSTEM VALUE VALUES (-:id, 'text.accepted', 'text 1')",
        None,
    ),
    "seal changed": ("UPDATE seals SET rows = rows + 1", "their seal was changed"),
    "seal deleted": ("DELETE FROM seals WHERE id = (SELECT min(id) FROM seals)", "does not continue"),
    "digests made again": ("UPDATE seals SET digests = digests || digests", "their seal was changed"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_change_of_the_audit_is_seen(process: Process, corpus: Corpus, how: str) -> None:
    statement, expected = TAMPERED[how]
    steps.ingest_all(corpus, steps.TEXTS[:1])
    sealed(process)
    accepted(corpus, steps.TEXTS[1])
    sealed(process)
    assert problems(process) == []
    ((number,),) = steps.sql(process, "SELECT max(id) FROM audit WHERE what = 'text.current'")
    for table in ("audit", "seals"):
        steps.sql(process, f"ALTER TABLE {table} DISABLE TRIGGER USER")
    given = {"id": number} if ":id" in statement else {}
    if how == "added":  # into a gap of the ids, of a transaction that was rolled back
        steps.sql(process, "DELETE FROM audit WHERE id = :id", id=number)
        statement = statement.replace("-:id", ":id")
        expected = "row {id} is not the one that was sealed"
    steps.sql(process, statement, **given)
    assert expected is not None
    assert any(expected.format(id=number) in each for each in problems(process)), problems(process)


LOGGED = {
    "changed": (
        "UPDATE security_log SET address = '10.9.9.9' WHERE id = :id",
        "row {id} is not the one that was sealed",
    ),
    "deleted": ("DELETE FROM security_log WHERE id = :id", "1 rows were deleted"),
}


@pytest.mark.parametrize("how", LOGGED)
def test_a_change_of_the_security_log_is_seen(api: Api, how: str) -> None:
    """Log-ins, first uses and refusals are sealed, as the audit is."""
    process, (statement, expected) = api.process, LOGGED[how]
    api.read.post("/v1/tokens", json={})
    api.with_key("crk_aaaaaaaaaa_" + "A" * 43).get("/v1/corpora")
    with process.database.snapshot() as connection:
        left = audit.verify(connection, "security_log", lambda _: None).unsealed
    sealed(process)
    with process.database.snapshot() as connection:
        head = audit.verify(connection, "security_log", lambda _: None)
    assert (left > 2, head.unsealed) == (True, 0)
    assert problems(process, "security_log") == []
    ((number,),) = steps.sql(process, "SELECT max(id) FROM security_log WHERE what = 'session.begun'")
    steps.sql(process, "ALTER TABLE security_log DISABLE TRIGGER USER")
    steps.sql(process, statement, id=number)
    (problem,) = problems(process, "security_log")
    assert problem.startswith("security_log: ")
    assert problem.endswith(expected.format(id=number))
    assert problems(process) == []


def test_a_view_that_hides_a_change_does_not_help(api: Api) -> None:
    """The relay seals by a view, because it may not read the log; who checks it reads the rows."""
    process = api.process
    api.read.post("/v1/tokens", json={})
    sealed(process)
    steps.sql(process, "CREATE TABLE saved AS SELECT * FROM security_log_digests")
    steps.sql(process, "CREATE OR REPLACE VIEW security_log_digests AS SELECT id, at, digest FROM saved")
    steps.sql(process, "ALTER TABLE security_log DISABLE TRIGGER USER")
    steps.sql(process, "UPDATE security_log SET who = 'nobody' WHERE what = 'session.begun'")
    assert len(problems(process, "security_log")) == 1


def test_seals_can_only_be_added(process: Process, corpus: Corpus) -> None:
    accepted(corpus, steps.TEXTS[0])
    sealed(process)
    for change in ("DELETE FROM", "TRUNCATE", "UPDATE digests = NULL", "UPDATE rows = 0"):
        statement = change.replace("UPDATE", "UPDATE seals SET") if "UPDATE" in change else f"{change} seals"
        with pytest.raises(DBAPIError, match="append only"):
            steps.sql(process, statement)


def test_two_relays_that_seal_at_the_same_moment(process: Process, corpus: Corpus) -> None:
    """The one that comes second waits for the first, and has sealed nothing; both go on."""
    sealers = [Sealer(process.database) for _ in range(2)]
    for sealer in sealers:
        assert sealer.seal(now=True) == 0  # it only notes what there is
    with ThreadPoolExecutor() as other, process.database.transaction() as first:
        number = first.execute(text("SELECT max(id) FROM audit")).scalar_one()
        assert audit.seal(first, "audit", number) is not None
        second = other.submit(sealers[1].seal, now=True)
        eventually(lambda: steps.sql(process, "SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'"))
        first.commit()
        assert second.result() == 0
    assert problems(process) == []
    steps.accept(corpus, steps.TEXTS[1])
    for _ in range(2):
        sealers[0].seal(now=True)
    assert sealers[1].seal(now=True) == 0
    assert problems(process) == []


def test_what_is_not_committed_yet_is_sealed_later(process: Process, corpus: Corpus) -> None:
    """A row with a lower id that is committed after others: no seal passes it over."""
    sealer = sealed(process)
    with process.database.transaction() as open_one:
        open_one.execute(text("UPDATE corpora SET description = 'late' WHERE id = :id"), {"id": corpus.id})
        accepted(corpus, steps.TEXTS[0])
        assert [sealer.seal(now=True) for _ in range(3)] == [0, 0, 0]
    assert sealer.seal(now=True) or sealer.seal(now=True)
    sealed(process)
    assert problems(process) == []
    with process.database.snapshot() as connection:
        assert audit.verify(connection, "audit", lambda _: None).unsealed == 0


def test_old_rows_may_go_and_the_chain_stays(process: Process, corpus: Corpus) -> None:
    """After 30 days; before, and of others in the same seal that are there, everything is checked."""
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(process, "ALTER TABLE audit DISABLE TRIGGER USER")
    steps.sql(process, "UPDATE audit SET at = at - INTERVAL '40 days'")
    steps.sql(process, "ALTER TABLE audit ENABLE TRIGGER USER")
    sealed(process)
    steps.sql(process, "DELETE FROM audit WHERE what = 'work.done'")
    assert problems(process) == []
    steps.sql(process, "DELETE FROM audit")
    steps.sql(process, "UPDATE seals SET digests = NULL WHERE source = 'audit'")
    accepted(corpus, steps.TEXTS[1])
    sealed(process)
    assert problems(process) == []
    steps.sql(process, "ALTER TABLE audit DISABLE TRIGGER USER")
    steps.sql(process, "DELETE FROM audit WHERE what = 'text.accepted'")
    assert problems(process)


def test_hashes_go_with_the_rows_of_their_own_table(api: Api) -> None:
    """Where all lines of the security log that were sealed are gone, those of the audit with the same ids stay."""
    process = api.process

    def hashed() -> dict[str, bool]:
        rows = steps.sql(process, "SELECT source, bool_and(digests IS NOT NULL) FROM seals GROUP BY 1")
        return {str(source): bool(there) for source, there in rows}

    for table, days in (("security_log", 400), ("seals", 99)):
        steps.sql(process, f"ALTER TABLE {table} DISABLE TRIGGER USER")
        steps.sql(process, f"UPDATE {table} SET at = at - INTERVAL '{days} days'")
        steps.sql(process, f"ALTER TABLE {table} ENABLE TRIGGER USER")
        sealed(process)
    left = {"security_log": True, "audit": True}
    for what, kept in (("hashes of sealed rows", 0.0), ("security_log", 365 * DAY), ("hashes of sealed rows", 0.0)):
        (rule,) = (rule for rule in RULES if rule.what == what)
        assert hashed() == left
        with process.database.transaction() as connection:
            retention.remove_some(connection, rule, kept)
    left["security_log"] = False
    assert hashed() == left
    assert problems(process, "security_log") == problems(process) == []
