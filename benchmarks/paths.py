"""Where the time goes between a request and its end: `make bench-paths`.

A deployment of real processes on one machine takes a text at a time by HTTP. What each piece of work waited and took is
read from its row: made and published by the commit before it, finished by its own. The median run is drawn. Nothing is
asserted here.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import texts
from benchmarks.closure import machine, written
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.everything import Everything, everything
from tests.support.server import HOST

TENANT = "bench"
SMALL, LARGE, KILLED = 25, 5, 5
"""runs of each path"""
LEASE = 5.0
MS = 1000


class Bar(NamedTuple):
    """What took from `begin` to `end`, in ms after the request was sent."""

    row: str
    what: str
    begin: float
    end: float


class Run(NamedTuple):
    """`total`: ms until the work of the last stage was finished."""

    bars: list[Bar]
    total: float


def report() -> Iterator[str]:
    yield from machine("Critical paths")
    yield "One text at a time, by HTTP, in a deployment on this machine: two relays, five workers, two APIs."
    yield "Drawn is the median run. `waits`: until it is published; `runs`: in its queue and in the task."
    yield ""
    with (
        tempfile.TemporaryDirectory() as folder,
        everything(Path(folder), [TENANT], {"CROCHET_LEASE": str(LEASE), "CROCHET_API_RATE": "1000000"}) as there,
    ):
        small = pieces("market.txt", SMALL)
        large = ["\n\n".join(texts.zipf(24_000, seed=number)) for number in range(LARGE)]
        _request(there, "POST", "/v1/corpora", {"name": "small"})
        yield from _path("A small text, to closed", [_run(there, "small", body) for body in small])
        runs = []
        for number, body in enumerate(large):
            _request(there, "POST", "/v1/corpora", {"name": f"large-{number}", "limits": {"max_axes": 2}})
            runs.append(_run(there, f"large-{number}", body))
        yield from _path("A text of 24,000 words with 2 axes, to closed", runs)
        _request(there, "POST", "/v1/corpora", {"name": "killed"})
        runs = [_run(there, "killed", body, lambda: _kill_stages(there)) for body in pieces("garden.txt", KILLED)]
        yield from _path(
            "A small text, whose worker is killed (SIGKILL) as the text is posted, and started again", runs
        )


def _kill_stages(there: Everything) -> None:
    """Kill the worker of the ordered stages and start it again at once, as a supervisor does."""
    for name in list(there.deployment.processes):
        if "context" in " ".join(there.deployment.command(name)):
            os.killpg(there.deployment.processes[name].pid, signal.SIGKILL)
            there.deployment.processes[name].wait()
    there.deployment.start_dead()


def _run(there: Everything, corpus: str, body: str, meanwhile: Callable[[], None] = lambda: None) -> Run:
    """Post a text, and wait until no work is open."""
    began = time.time()
    _request(there, "POST", f"/v1/corpora/{corpus}/texts", {"title": "a text", "body": body})
    bars = [Bar("API", "POST", 0.0, (time.time() - began) * MS)]
    meanwhile()
    while not _request(there, "GET", f"/v1/corpora/{corpus}/status")["closed"]:
        time.sleep(0.002)
    rows = steps.sql(
        there.process,
        "SELECT kind, created_at, published_at, finished_at FROM work"
        " WHERE created_at >= to_timestamp(:began) ORDER BY created_at, published_at",
        began=began,
    )
    for kind, *moments in rows:
        made, published, finished = ((moment.timestamp() - began) * MS for moment in moments)  # type: ignore[attr-defined]
        bars += [Bar(str(kind), "waits", made, published), Bar(str(kind), "runs", published, finished)]
    return Run(bars, max(bar.end for bar in bars))


def _path(title: str, runs: list[Run]) -> Iterator[str]:
    totals = sorted(run.total for run in runs)
    median = sorted(runs, key=lambda run: run.total)[len(runs) // 2]
    yield f"## {title}"
    yield ""
    yield f"{len(runs)} runs: median {statistics.median(totals):.0f} ms, from {totals[0]:.0f} to {totals[-1]:.0f}."
    yield ""
    yield from ("```mermaid", "gantt", "    dateFormat x", "    axisFormat %S.%L")
    sections: dict[str, list[Bar]] = {}
    for bar in median.bars:
        sections.setdefault(bar.row, []).append(bar)
    for row, bars in sections.items():
        yield f"    section {row}"
        for what in dict.fromkeys(bar.what for bar in bars):
            same = [bar for bar in bars if bar.what == what]
            begin, end = min(bar.begin for bar in same), max(bar.end for bar in same)
            number = f", {len(same)} pieces" if len(same) > 1 else ""
            yield f"    {what} {end - begin:.0f} ms{number} :{begin:.0f}, {max(end, begin + 1):.0f}"
    yield from ("```", "")


def _request(there: Everything, method: str, path: str, body: object = None) -> Any:
    headers = {"Authorization": f"Bearer {there.keys[TENANT]}", "Content-Type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(HOST, there.ports[0], timeout=60)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
    assert answer.status < http.client.BAD_REQUEST, f"{method} {path}: {answer.status} {content!r}"
    return json.loads(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    written("paths", report)


if __name__ == "__main__":
    main()
