"""Where the time of a run goes: `make profile ARGS='FILE...'`. Stages, then functions.

One thread, in Celery's eager mode, on a private Postgres, so that the figures of functions are those of the pipeline,
not of threads that wait. `make profile` writes them to .state/profile.pstats, too, for viewers such as snakeviz.
The last text is measured alone, as it comes to a corpus that holds the others.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from celery import signals

from crochet_tasks import publish
from crochet_tasks.app import app
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.embedded.store import opened
from crochet_tasks.intake import admission
from crochet_tasks.settings import Settings

OUT = Path(".state/profile.pstats")


class Stages:
    """Seconds by task, without those of tasks that it has run itself: storing is called by the search."""

    def __init__(self) -> None:
        self.number, self.wall, self.cpu = (
            Counter[str](),
            defaultdict[str, float](float),
            defaultdict[str, float](float),
        )
        self._open: list[str] = []
        self._at = 0.0, 0.0
        signals.task_prerun.connect(self._begin, weak=False)
        signals.task_postrun.connect(self._end, weak=False)

    def _charge(self) -> None:
        """Charge what has passed to the innermost task; outside of all, to the publishing."""
        now = time.perf_counter(), time.process_time()
        name = self._open[-1] if self._open else "publish"
        self.wall[name] += now[0] - self._at[0]
        self.cpu[name] += now[1] - self._at[1]
        self._at = now

    def start(self) -> None:
        self._at = time.perf_counter(), time.process_time()

    def _begin(self, sender: Any, **_: Any) -> None:
        self._charge()
        self._open.append(sender.name)
        self.number[sender.name] += 1

    def _end(self, **_: Any) -> None:
        self._charge()
        self._open.pop()

    def stop(self) -> None:
        self._charge()
        signals.task_prerun.disconnect(self._begin)
        signals.task_postrun.disconnect(self._end)

    def lines(self) -> list[str]:
        rows = [f"{'task':20} {'runs':>6} {'ms':>10} {'ms of CPU':>10}"]
        for name, seconds in self.wall.items():
            rows.append(f"{name:20} {self.number[name]:6} {1000 * seconds:10.1f} {1000 * self.cpu[name]:10.1f}")
        total = 1000 * sum(self.wall.values()), 1000 * sum(self.cpu.values())
        return [*rows, f"{'all':20} {'':6} {total[0]:10.1f} {total[1]:10.1f}"]


def work(corpus: Corpus, bodies: list[str]) -> Stages:
    """Accept texts and do all their work, in this thread."""
    for number, body in enumerate(bodies, 1):
        admission.accept(corpus, f"profiled {number}", body)
    stages = Stages()
    stages.start()
    while publish.publish_next(corpus.id):
        pass
    stages.stop()
    return stages


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("files", nargs="*", type=Path, default=[Path("examples/harbour.txt")], metavar="FILE")
    options.add_argument("--max-axes", type=int, default=3)
    options.add_argument("--top", type=int, default=25, help="functions that are printed")
    given = options.parse_args()
    bodies = [file.read_text(encoding="utf-8") for file in given.files]
    app.conf.task_always_eager = True
    with tempfile.TemporaryDirectory() as state, opened(Settings(state_dir=Path(state))) as process:
        with process.database.transaction() as connection:
            corpus = corpora.get_or_create(connection, "profile", {"max_axes": given.max_axes})
        if len(bodies) > 1:
            print(*work(corpus, bodies[:-1]).lines(), "", f"{given.files[-1]}, after the others:", sep="\n")
        print(*work(corpus, bodies[-1:]).lines(), sep="\n")
    with tempfile.TemporaryDirectory() as state, opened(Settings(state_dir=Path(state))) as process:
        with process.database.transaction() as connection:
            corpus = corpora.get_or_create(connection, "profile", {"max_axes": given.max_axes})
        with cProfile.Profile() as profile:
            work(corpus, bodies)
    OUT.parent.mkdir(exist_ok=True)
    profile.dump_stats(OUT)
    print(f"\nFunctions, of all texts, slower than above because they are counted ({OUT}):")
    pstats.Stats(profile).sort_stats("tottime").print_stats(given.top)


if __name__ == "__main__":
    main()
