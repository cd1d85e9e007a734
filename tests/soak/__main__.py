"""make soak: a deployment that takes texts, answers readers and deletes corpora for hours; what grew meanwhile.

python -m tests.soak [--hours H] [--report FILE]. Each round makes a corpus, posts small texts to it, now and then a
large one, reads it by both APIs until its work is done, and deletes the corpus of some rounds ago. So the store stays
as large as it is, and what still grows is history that is kept by settings, or a leak. At the end the last corpora must
hold exactly their closures.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.texts import zipf
from crochet_tasks.db import corpora
from crochet_tasks.verify import verify
from tests.soak.samples import CACHE, FILES, MEMORY, TABLE, Sample, Trend, sample, trends
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import check, until, until_closed
from tests.support.everything import Everything, everything
from tests.support.server import HOST
from tests.support.waiting import SECONDS

TENANT = "soak"
SAMPLE_SECONDS = 15.0
WARM = 0.2
"""share of the time before growth counts"""
KEPT = 5
"""corpora that are there at a time"""
SMALL_TEXTS = 12
LARGE_EVERY = 6
"""rounds"""
LARGE_WORDS = 6_000
MOST_HOURLY = 0.01
"""growth above which it is named"""
LEAST_GROWTH = 0.1
"""growth up to which it is not: some pages of a small table, in MB, or a tenth of a file, message or piece of work"""
POINTS = 60
"""of a chart"""
TITLES = {MEMORY: "memory, MB", CACHE: "caches of an API, MB", FILES: "open files", TABLE: "tables, MB"}
"""of the charts, by the beginning of what they show"""
LEAST = 0.05
"""what never reaches so much is left out"""
CACHES = {"CROCHET_API_CACHE_BYTES": "20000000", "CROCHET_WORKER_CACHE_BYTES": "20000000"}
"""small, so that they are soon full, and what still grows then is none of them"""
HISTORY = {
    "audit": "a row for each change, for `CROCHET_AUDIT_DAYS`",
    "seals": "a hash for each row of audit, for as long",
    "security_log": "a line for each change by a key, for `CROCHET_SECURITY_LOG_DAYS`",
}
"""tables that keep what happened, whatever is deleted"""


class Load(threading.Thread):
    """Rounds, one after the other; ends with what is wrong, or when it is stopped."""

    def __init__(self, there: Everything) -> None:
        super().__init__(daemon=True, name="load")
        self._there, self._ports = there, itertools.cycle(there.ports)
        self.stopped = threading.Event()
        self.problem: BaseException | None = None
        self.texts = self.answers = self.rounds = 0
        self.last: dict[str, list[str]] = {}
        """the texts of the corpora that are still there"""

    def run(self) -> None:
        try:
            for number in itertools.count():
                if self.stopped.is_set():
                    return
                self._round(f"round-{number}", number % LARGE_EVERY == LARGE_EVERY - 1)
                self.rounds += 1
        except BaseException as problem:
            self.problem = problem
            raise

    def _round(self, name: str, large: bool) -> None:
        self.ask("POST", "/v1/corpora", {"name": name, "limits": {"max_axes": 2}} if large else {"name": name})
        bodies = [" ".join(zipf(LARGE_WORDS, seed=self.rounds))] if large else pieces("market.txt", SMALL_TEXTS)
        for body in bodies:
            self.ask("POST", f"/v1/corpora/{name}/texts", {"title": "a text", "body": body})
            self.texts += 1
        self.last[name] = bodies
        while not self._read(name) and not self.stopped.is_set():
            time.sleep(0.2)
        if len(self.last) > KEPT:
            oldest = next(iter(self.last))
            self.ask("DELETE", f"/v1/corpora/{oldest}?confirm={oldest}")
            del self.last[oldest]

    def _read(self, name: str) -> bool:
        """Read a corpus in some ways; whether its work is done."""
        status = self.ask("GET", f"/v1/corpora/{name}/status")
        page = self.ask("GET", f"/v1/corpora/{name}/orthos?limit=50")
        if page["orthos"]:
            self.ask("GET", f"/v1/corpora/{name}/orthos/{page['orthos'][-1]['id']}")
        self.ask("GET", f"/v1/corpora/{name}/vocabulary?limit=50")
        return bool(status["closed"])

    def ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._there.keys[TENANT]}", "Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection(HOST, next(self._ports), timeout=SECONDS)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < http.client.BAD_REQUEST, f"{method} {path}: {answer.status} {content!r}"
        self.answers += 1
        return json.loads(content) if content else None


def soak(there: Everything, load: Load, seconds: float) -> list[Sample]:
    """Sample until the time is over; raises what went wrong meanwhile."""
    began, found = time.monotonic(), list[Sample]()
    while (now := time.monotonic() - began) < seconds:
        assert load.problem is None, f"{load.problem!r}\n{there.deployment.logs()}"
        assert (dead := there.deployment.start_dead()) == [], f"ended: {dead}\n{there.deployment.logs()}"
        found.append(sample(there, now, load.texts))
        time.sleep(SAMPLE_SECONDS)
    return found


def finish(there: Everything, load: Load) -> int:
    """No more texts; the corpora that are there are exact, of the deleted ones nothing is left. Returns the orthos."""
    load.stopped.set()
    load.join()
    process, orthos = there.process, 0
    rows = steps.sql(process, "SELECT name, id FROM corpora WHERE removed_at IS NULL")
    assert {str(name) for name, _ in rows} == set(load.last)
    for name, number in rows:
        with process.database.transaction() as connection:
            corpus = corpora.numbered(connection, int(str(number)))
        until_closed(process, corpus, there.deployment)
        bodies = load.last[str(name)]
        if len(bodies) == 1:  # large: the oracle would take hours
            assert verify(process, corpus, closure=True) == []
        else:
            check(process, corpus, steps.expected(bodies, corpus.limits))
        orthos += steps.stored(process, corpus).total()
    until(lambda: len(steps.sql(process, "SELECT FROM corpora")) == len(load.last), there.deployment)
    return orthos


def report(samples: list[Sample], load: Load, orthos: int) -> str:
    """What grew, and how, in Markdown."""
    warm = [each for each in samples if each.seconds >= WARM * samples[-1].seconds]
    found = {name: trend for name, trend in trends(warm).items() if trend.most >= LEAST}
    hours = samples[-1].seconds / 3600
    lines = [
        f"# Soak, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"`make soak HOURS={hours:.2g}` on two shared cores:",
        "two relays, five workers, two APIs, RabbitMQ, Postgres, Redis.",
        f"{load.rounds} rounds, {load.texts:,} texts, {load.answers:,} answers, no error;",
        f"{len(load.last)} corpora are kept, older ones deleted. The {orthos:,} orthos of the last ones",
        "are exactly their closures: of small texts by the oracle, of large ones by `verify`.",
        "",
        f"Growth is that of a straight line through the values after the first {WARM:.0%} of the time,",
        "as a share of what it was then. Memory of servers is what their processes alone have (USS).",
        "That of ours, with their children, is also what they share (RSS): what one of them writes to after a fork",
        "is shared no more, and is no leak.",
        "",
        *_charts(samples),
        "| | after the warm-up | at the end | most | in an hour | for each text |",
        "|---|---|---|---|---|---|",
        *(_line(name, trend) for name, trend in found.items()),
        "",
        f"Grew by more than {MOST_HOURLY:.0%} in an hour and {LEAST_GROWTH:g} in all, and why where that is known:",
        "",
        *_growing(found),
    ]
    return "\n".join([*lines, ""])


def _line(name: str, trend: Trend) -> str:
    per_text = f"{trend.per_text * 1_000_000:.0f} bytes" if "MB" in name else f"{trend.per_text:.4f}"
    return f"| {name} | {trend.first:,.1f} | {trend.last:,.1f} | {trend.most:,.1f} | {trend.hourly:+.1%} | {per_text} |"


def _growing(found: Mapping[str, Trend]) -> Iterator[str]:
    for name, trend in found.items():
        if trend.hourly > MOST_HOURLY and trend.last > trend.first + LEAST_GROWTH:
            why = HISTORY.get(name.removeprefix(TABLE)) if name.startswith(TABLE) else None
            yield f"- {name}: {trend.hourly:+.1%}{f' ({why})' if why else ''}"


def _charts(samples: list[Sample]) -> Iterator[str]:
    """Memory, open files and tables over time, as Mermaid."""
    step = -(-len(samples) // POINTS)
    some = samples[::step]
    for prefix, title in TITLES.items():
        yield from ("```mermaid", "xychart-beta", f'    title "{title}, by minutes"')
        yield f'    x-axis "minutes" 0 --> {samples[-1].seconds / 60:.0f}'
        for name in sorted({name for each in samples for name, value in each.values.items() if value >= LEAST}):
            if not name.startswith(prefix):
                continue
            values = ", ".join(f"{each.values.get(name, 0.0):.1f}" for each in some)
            yield f'    line "{name.removeprefix(prefix)}" [{values}]'
        yield from ("```", "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crochet-soak-"))  # it stays where something is wrong, for its logs
    with everything(folder, [TENANT], CACHES | {"CROCHET_API_RATE": "1000000"}, forked=False) as there:
        load = Load(there)
        load.start()
        samples = soak(there, load, options.hours * 3600)
        written = report(samples, load, finish(there, load))
    shutil.rmtree(folder)
    print(written)
    if options.report:
        options.report.write_text(written)


if __name__ == "__main__":
    main()
