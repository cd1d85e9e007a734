"""The recovery drill (`make drill`): a backup under load, the database destroyed and restored, all work done."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from crochet_tasks.engine.geometry import Limits
from crochet_tasks.schemas.recovery import Manifest
from tests.acceptance.conftest import Deploy
from tests.support import services, steps
from tests.support.bodies import pieces
from tests.support.cli import crochet
from tests.support.cluster import accept, check, corpus_of, until, until_closed
from tests.support.commands import EVERYTHING, RELAY
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

TEXTS = pieces("market.txt", 10)
PAUSE_SECONDS = 0.7


def text(number: int) -> str:
    """One of as many texts as are needed; each brings an ortho of its own."""
    if number < len(TEXTS):
        return TEXTS[number]
    a, b, c, d = (f"{word}{'x' * number}" for word in ("quay", "buoy", "helm", "mast"))
    return f"{a} {b}, {c} {d}, {a} {c}, {b} {d}"


SIZES = {"CROCHET_BATCH_ORTHOS": "10", "CROCHET_PART_WORDS": "20", "CROCHET_RESULT_ORTHOS": "100"}


@pytest.mark.timeout(900)  # a minute on two quiet cores
def test_work_goes_on_from_a_backup_after_the_loss_of_the_database(
    deploy: Deploy, postgres: services.Postgres, tmp_path: Path
) -> None:
    """Old messages stay in the queues. What was accepted after the backup is gone as a whole, and is posted again."""
    place, first = tmp_path / "backups", deploy(**SIZES)
    assert first.settings.database_url is not None
    old = first.settings.database_url.get_secret_value()
    with first.process() as process:
        corpus = corpus_of(process, Limits())
        for command in (RELAY, EVERYTHING):
            first.start(*command)
        over, posted = threading.Event(), list[str]()

        def post() -> None:
            while not over.wait(PAUSE_SECONDS):
                accept(process, corpus, [text(len(posted))])
                posted.append(text(len(posted)))

        poster = threading.Thread(target=post)
        poster.start()

        def backup() -> str:
            """What it prints; nothing where it was quicker than the next text: then it was made under no load."""
            began = len(posted)
            done = crochet("backup", place, "--json", CROCHET_DATABASE_URL=old)
            assert done.returncode == 0, done.stderr
            return done.stdout if len(posted) > began else ""

        try:
            until(lambda: steps.version(process, corpus) >= 2, first)
            made = Manifest.model_validate_json(eventually(backup))
        finally:
            over.set()
            poster.join()
        before = made.corpora[0]
        posted.append("the backup knows nothing of this")
        accept(process, corpus, posted[-1:])
        for name in list(first.processes):
            first.kill(name)
    postgres.drop_database(old)

    new = postgres.new_database()
    restored = crochet("restore", place, CROCHET_DATABASE_URL=new)
    assert restored.returncode == 0, restored.stderr
    second = deploy(CROCHET_DATABASE_URL=new, **SIZES)
    with second.process() as process:
        kept = steps.sql(process, "SELECT body FROM texts ORDER BY id")
        assert [body for (body,) in kept] == posted[: before.texts]
        for command in (RELAY, EVERYTHING):
            second.start(*command)
        until_closed(process, corpus, second)
        assert steps.version(process, corpus) == before.texts
        check(process, corpus, steps.expected(posted[: before.texts]))
        accept(process, corpus, posted[before.texts :])
        until_closed(process, corpus, second)
        check(process, corpus, steps.expected(posted))
        for name in list(second.processes):
            second.kill(name)
    postgres.drop_database(new)
