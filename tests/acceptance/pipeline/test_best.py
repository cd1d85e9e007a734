"""The best orthos on a real broker: any number of workers, also killed ones, prove the same, and the proof holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from crochet_tasks.db import corpora
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.operate import best_jobs
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.best import BUSY, BUSY_SCOPE, ask, done_parts, expected, orthos, read
from tests.support.cli import crochet
from tests.support.cluster import accept, corpus_of, until, until_closed
from tests.support.commands import RELAY, SEARCH, STAGES, STORE
from tests.support.dense import corpus as dense
from tests.support.faulty import faulty
from tests.support.longer import by_run

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

DONE = 20
"""parts and plans that are done before the kills"""


@pytest.mark.parametrize("workers", by_run([2], longer=[1, 4]))
def test_workers_are_killed_during_their_parts(deploy: Deploy, tmp_path: Path, workers: int) -> None:
    """All of them, by kill -9, while each has a part that is not committed: others go on, and the answer is exact."""
    texts, gate = steps.usable(dense(BUSY)), tmp_path / "gate"
    gate.mkdir()
    deployment = deploy(CROCHET_BEST_PART_VISITS="1", CROCHET_LEASE="2")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits(3, 3, 64))
        for command in (RELAY, STAGES, STORE):
            deployment.start(*command)
        held = faulty("hold", "best.part", str(gate), str(DONE))
        searchers = [deployment.start(*SEARCH, "--concurrency", "1", program=held) for _ in range(workers)]
        accept(process, corpus, texts)
        until_closed(process, corpus, deployment)
        (gate / "hold").touch()
        job = ask(process, corpus)
        until((gate / "waits").exists, deployment)
        before = read(process, corpus)
        assert before.state == "running"
        for name in searchers:
            deployment.kill(name)
        (gate / "hold").unlink()
        for _ in range(workers):
            deployment.start(*SEARCH, "--concurrency", "1")
        until(lambda: read(process, corpus).state not in ("queued", "running"), deployment)
        found = read(process, corpus, job.id)
        assert (found.state, orthos(found)) == ("proven", expected(texts, BUSY_SCOPE)), deployment.logs()
        assert done_parts(process, corpus) > DONE
        with process.database.snapshot() as connection:
            proof = best_jobs.certificate(connection, corpora.numbered(connection, corpus.id), job.id)
    check(tmp_path, texts, proof)


def check(folder: Path, texts: list[str], proof: str) -> None:
    """`crochet best --check` accepts the proof, for the texts as files."""
    path = folder / "certificate.json"
    path.write_text(proof)
    files = []
    for number, body in enumerate(texts):
        files.append(folder / f"text-{number}.txt")
        files[-1].write_text(body)
    done = crochet("best", "--check", path, *files, "--full", "--transposed")
    assert done.returncode == 0, done.stderr
    assert "an independent search agrees" in done.stdout
