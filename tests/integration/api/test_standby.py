"""With CROCHET_DATABASE_READ_URL the API reads from a standby what that has already, and never anything older."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from api import create_app, process
from crochet_tasks.db import standby
from crochet_tasks.doctor import Check, checks
from crochet_tasks.settings import Settings
from tests.conftest import migrate
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, made
from tests.support.recorded import Counted
from tests.support.replicated import Standby
from tests.support.services import Postgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

READS = "crochet_api_reads_total"


class Servers(NamedTuple):
    """A primary, and a standby that follows it."""

    primary: Postgres
    standby: Standby

    def database(self) -> tuple[str, str]:
        """The addresses of a new database, and of its copy."""
        url = self.primary.new_database()
        migrate(url)
        return url, url.replace(f":{self.primary.port}", f":{self.standby.port}")

    def on_standby(self, call: str) -> None:
        with closing(self.standby._connect()) as connection:
            connection.execute(f"SELECT {call}".encode())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("replicated")
    primary = Postgres(folder / "primary")
    try:
        primary.start()
        second = Standby(folder / "standby", primary)
        try:
            second.start()
            yield Servers(primary, second)
        finally:
            second.kill()
    finally:
        primary.kill()


@pytest.fixture
def api(servers: Servers, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """With a standby, which is asked again at once when it was behind."""
    monkeypatch.setattr(standby, "BEHIND_SECONDS", 0.0)
    yield from opened(*servers.database())


def opened(url: str, read_url: str) -> Iterator[Api]:
    settings = Settings(**SETTINGS, database_url=SecretStr(url), database_read_url=SecretStr(read_url))
    app = create_app(settings)
    with app.app_context():
        here = process.current()
    try:
        yield made(here, settings, lambda _: app)
    finally:
        process.close(app)


def post(api: Api, body: str) -> str:
    """Hand a text in and do its work; its path."""
    answer = api.write.post("/v1/corpora/genesis/texts", json={"title": "a text", "body": body})
    assert answer.status_code == 202, answer.data
    return f"/v1/corpora/genesis/texts/{answer.get_json()['id']}"


def is_read(api: Api, counted: Counted, source: str) -> bool:
    """Whether the next read of the corpus comes from there."""
    before = counted(READS).get(source, 0)
    assert api.read.get("/v1/corpora/genesis").status_code == 200
    return counted(READS).get(source, 0) > before


def test_what_was_just_written_is_read(api: Api, counted: Counted) -> None:
    """From whichever server: each text as soon as it is accepted, and at the end the orthos; most from the standby."""
    corpus = corpus_of(api)
    for body in steps.TEXTS:
        assert api.read.get(post(api, body)).status_code == 200
    steps.run(corpus)
    status = api.read.get("/v1/corpora/genesis/status").get_json()
    assert (status["version"], status["closed"]) == (len(steps.TEXTS), True)
    page = api.read.get("/v1/corpora/genesis/orthos?limit=1000").get_json()
    assert len(page["orthos"]) == steps.expected(steps.TEXTS).total()
    eventually(lambda: is_read(api, counted, "standby"))


def test_a_standby_that_is_behind_is_not_read(api: Api, servers: Servers, counted: Counted) -> None:
    """What it has not is read from the primary, until it has it."""
    corpus_of(api)
    eventually(lambda: is_read(api, counted, "standby"))
    servers.on_standby("pg_wal_replay_pause()")
    path = post(api, "the seas and land")
    assert api.read.get(path).status_code == 200
    assert is_read(api, counted, "primary")
    servers.on_standby("pg_wal_replay_resume()")
    eventually(lambda: is_read(api, counted, "standby"))
    assert api.read.get(path).status_code == 200


def test_reads_go_on_while_the_standby_is_away(api: Api, servers: Servers, counted: Counted) -> None:
    corpus_of(api)
    eventually(lambda: is_read(api, counted, "standby"))
    servers.standby.kill()
    assert is_read(api, counted, "primary")
    servers.standby.start()
    eventually(lambda: is_read(api, counted, "standby"))


def test_another_database_is_refused(servers: Servers, counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is read from it, and what operators see names the setting."""
    (url, _), (_, other) = servers.database(), servers.database()
    for api in opened(url, other):
        api.problem(api.read.get("/v1/corpora/genesis"), "database_unsuitable", 503)
    assert "standby" not in counted(READS)
    assert any("CROCHET_DATABASE_READ_URL names another database" in line.error for line in caplog.records)  # type: ignore[attr-defined]
    found = doctor(url, other)
    assert not found.well
    assert "CROCHET_DATABASE_READ_URL names another database" in found.found


def doctor(url: str, read_url: str) -> Check:
    """What `crochet doctor` says of a standby."""
    given = {"database_url": url, "database_read_url": read_url}
    [found] = [check for check in checks.checks(**given) if check.name == "standby"]
    return found


def test_doctor_says_how_a_standby_is(servers: Servers) -> None:
    url, copy = servers.database()
    eventually(lambda: doctor(url, copy).well)
    servers.standby.kill()
    assert not doctor(url, copy).well
    servers.standby.start()
    eventually(lambda: doctor(url, copy).well)


def test_a_standby_that_was_promoted_is_not_read(api: Api, servers: Servers, counted: Counted) -> None:
    """It has a history of its own from then on. Last in this file: it follows no more."""
    corpus_of(api)
    eventually(lambda: is_read(api, counted, "standby"))
    servers.standby.promote()
    assert is_read(api, counted, "primary")
    assert is_read(api, counted, "primary")
