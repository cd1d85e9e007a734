"""The version, asked for often: from Redis while it is fresh, and never an older one than was shown before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from pydantic import SecretStr

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from crochet_tasks.versions import Seen, Versions
from tests.support import services, steps
from tests.support.api import SETTINGS, Api, made

pytestmark = pytest.mark.integration


def here() -> str:
    return "here"


def never() -> Seen:
    raise AssertionError("the database was asked")


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=SecretStr(redis_url))


@pytest.fixture
def process(database: str, settings: Settings) -> Iterator[Process]:
    with open_process(settings, database) as process:
        yield process


@pytest.fixture
def api(process: Process) -> Api:
    return made(process, Settings(**SETTINGS))


@pytest.fixture
def corpus(api: Api) -> Corpus:
    api.write.post("/v1/corpora", json={"name": "genesis"})
    with api.process.database.transaction() as connection:
        return corpora.named(connection, "genesis")


def test_the_database_is_asked_once(settings: Settings) -> None:
    """Then Redis knows it, for a moment, and so do other processes."""
    one, other = Versions(settings, here), Versions(settings, here)
    assert one.read(1, "genesis", lambda: Seen(7, 3)) == Seen(7, 3)
    assert other.read(1, "genesis", never) == Seen(7, 3)
    assert one.read(2, "genesis", lambda: Seen(8, 1)) == Seen(8, 1)
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:  # type: ignore[union-attr]
        assert 0 < client.ttl("crochet:version:here:1:genesis") <= 2
    one.close()
    other.close()


def test_while_a_version_is_made_the_database_is_asked(settings: Settings) -> None:
    """From before the commit on; nobody keeps what was read meanwhile, nor what was read before and comes late."""
    versions = Versions(settings, here)

    def late() -> Seen:
        barrier = versions.begin(1, "genesis")  # all of it, while this reader has the old version in hand
        versions.end(barrier, Seen(7, 4))
        return Seen(7, 3)

    assert versions.read(1, "genesis", late) == Seen(7, 3)
    assert versions.read(1, "genesis", never) == Seen(7, 4)
    versions.begin(1, "genesis")
    assert versions.read(1, "genesis", lambda: Seen(7, 4)) == Seen(7, 4)
    assert versions.read(1, "genesis", lambda: Seen(7, 5)) == Seen(7, 5)
    versions.close()


def test_databases_that_share_a_redis_do_not_see_each_others_versions(
    process: Process, create: Callable[[str], str], migrated: str, settings: Settings
) -> None:
    steps.ingest_all(steps.new_corpus(process, name="genesis"), ["a text"])
    assert made(process, Settings(**SETTINGS)).read.get("/v1/corpora/genesis/version").status_code == 200
    other = Process(settings, Database(create(migrated), settings))
    assert made(other, Settings(**SETTINGS)).read.get("/v1/corpora/genesis/version").status_code == 404
    other.close()


def test_a_writer_that_comes_late_changes_nothing(settings: Settings) -> None:
    """Only who has laid the last barrier may take it away."""
    versions = Versions(settings, here)
    first, second = versions.begin(1, "genesis"), versions.begin(1, "genesis")
    versions.end(second, Seen(7, 5))
    versions.end(first, Seen(7, 4))
    assert versions.read(1, "genesis", never) == Seen(7, 5)
    versions.close()


def test_the_version_grows_and_never_shrinks(api: Api, corpus: Corpus) -> None:
    """Asked by several all the time while versions are made; no reader sees less than another one saw before."""
    shown: list[int] = []
    lock, stopped = threading.Lock(), threading.Event()
    wrong: list[tuple[int, int]] = []

    def ask() -> None:
        while not stopped.is_set():
            least = max(shown, default=0)
            seen = api.read.get("/v1/corpora/genesis/version").get_json()["version"]
            with lock:
                shown.append(seen)
                if seen < least:
                    wrong.append((least, seen))

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(8):
        steps.accept(corpus, f"text word{'x' * number}")
        steps.run(corpus)
    stopped.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 8


def test_a_deleted_corpus_has_no_version(api: Api, corpus: Corpus) -> None:
    """At once, and a new one of that name begins anew."""
    steps.ingest_all(corpus, steps.TEXTS[:1])
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 1
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    api.problem(api.read.get("/v1/corpora/genesis/version"), "corpus_unknown", 404)
    api.write.post("/v1/corpora", json={"name": "genesis"})
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 0


def test_without_redis_nothing_is_lost(api: Api, corpus: Corpus, redis_server: services.Redis) -> None:
    """The database answers, and versions are made."""
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 0
    redis_server.kill()
    for number, body in enumerate(steps.TEXTS, 1):
        steps.accept(corpus, body)
        steps.run(corpus)
        assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == number
