"""Searches for the best orthos in a run: clients ask for them and stop them; in the end each that was not is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import DEFAULT_TENANT
from crochet_tasks.db.process import Process, here
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.operate import best_jobs
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.query.best import CERTIFICATES
from crochet_tasks.schemas.names import best_name
from tests.simulation.corpora import expected
from tests.support import best
from tests.support.strategies import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.world import World

SPECS = (JobSpec({}, None), JobSpec({}, 3), JobSpec({"max_axes": 2}, None))


class Best:
    """What clients have asked for. `asked`: by its name each job whose answer one has received: corpus, question."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: dict[str, tuple[int, int, JobSpec]] = {}
        self.stopped: set[str] = set()
        """jobs that may be stopped in the end"""

    def ask(self) -> None:
        world = self._world
        number, spec = world.choices.of(sorted(world.versions)), world.choices.of(SPECS)

        def ask() -> None:
            answer, _ = best_jobs.ask(here(), DEFAULT_TENANT, world.ids[number].name, spec, None)
            job = str(answer.answer["id"])
            self.asked[job] = number, int(str(answer.answer["version"])), spec
            world.reached("the best orthos were asked for")
            if job in self.stopped and not any(each.about == job for each in world.scheduler.live):
                self.stopped.discard(job)
                if answer.answer["state"] != "proven":
                    world.reached("a search for the best was asked for again after it was stopped")

        world.clients.client(f"asks for the best of {number}", ask)

    def stop(self) -> None:
        world = self._world
        job = world.choices.of(list(self.asked))
        number, *_ = self.asked[job]
        self.stopped.add(job)

        def stop() -> None:
            running = world.live("best.part", number)
            found = best_jobs.stop(here(), DEFAULT_TENANT, world.ids[number].name, job)
            if found.state == "stopped":
                world.reached("a search for the best was stopped")
                if running:
                    world.reached("a search for the best was stopped while it ran")

        world.clients.client(f"stops {job}", stop, job)

    def drop(self, item: str) -> None:
        """An operator drops work: where it is a part of a job, this one may stay stopped."""
        jobs = self._world.store.rows("SELECT subject FROM work WHERE id = %s AND kind = 'best'", item)
        self.stopped.update(best_name(number) for (number,) in jobs)

    def may_be_stopped(self, number: int) -> None:
        """All work of a corpus was cancelled, with its jobs."""
        jobs = self._world.store.rows("SELECT id FROM best WHERE corpus = %s AND finished_at IS NULL", number)
        self.stopped.update(best_name(job) for (job,) in jobs)

    def check(self, process: Process, number: int, texts: Mapping[int, str], limits: Limits) -> None:
        """Raise AssertionError unless each job of a corpus is at its end. `texts`: by version."""
        rows = self._world.store.rows(_JOBS, number)
        jobs = {best_name(row[0]): row for row in rows}
        for job, (of, version, spec) in self.asked.items():
            if of == number:
                assert job in jobs, f"{job} was asked for and is lost"
                question = version, *Scope(*limits)._replace(**spec.limits), spec.top  # type: ignore[arg-type]
                assert jobs[job][1:] == question, f"{job} is of {jobs[job]}, and was of {question}"
        for job, (_, version, axes, side, cells, top) in jobs.items():
            with process.database.snapshot() as connection:
                corpus = corpora.numbered(connection, number)
                found = best_jobs.read(connection, corpus, job)
                if found.state == "stopped" and job in self.stopped:
                    continue
                assert found.state == "proven", f"{job} of corpus {number} is {found.state}: {found.error}"
                proof = CERTIFICATES.validate_json(best_jobs.certificate(connection, corpus, job))
                certificate.check(proof, process.tree(connection, number, version))
            bodies = frozenset(body for of, body in texts.items() if of <= version)
            wanted = best.best_of(expected(bodies, Limits(axes, side, cells)), top)
            assert best.orthos(found) == wanted, f"{job} of corpus {number} found {best.orthos(found)}, not {wanted}"
            self._world.reached("the best orthos were proven")
        left = self._world.store.rows(_LEFT)
        assert left == [], f"orthos of faces are left of jobs that are proven: {left}"


_JOBS = "SELECT id, version, max_axes, max_side, max_cells, top FROM best WHERE corpus = %s ORDER BY id"
_LEFT = "SELECT job FROM best_faces JOIN best ON best.id = job WHERE finished_at IS NOT NULL"
