"""What a deployment uses at a moment: memory and files of its processes, connections, tables, queues."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import psutil

from tests.support import steps
from tests.support.everything import Everything
from tests.support.scraping import Scraped

MEMORY, CACHE, FILES, TABLE = "memory, MB: ", "cache of an API, MB: ", "open files: ", "table, MB: "
MB = 1_000_000
SECONDS_PER_HOUR = 3600.0


class Sample(NamedTuple):
    """At `seconds` after the beginning; `values` by name, and `texts` that had come by then."""

    seconds: float
    texts: int
    values: dict[str, float]


def sample(there: Everything, seconds: float, texts: int) -> Sample:
    """Measure everything now; takes some tenths of a second."""
    values: defaultdict[str, float] = defaultdict(float)
    for name, process in there.deployment.processes.items():
        kind = name.partition("-")[2]
        queues = there.deployment.command(name)[2:]  # of a worker
        _add(values, " ".join([kind, *queues]), [process.pid, *there.deployment.children(name)], "rss")
    for server in (there.postgres, there.rabbitmq, there.redis):
        _add(values, type(server).__name__, [each.pid for each in server.processes()], "uss")
    scraped = Scraped()
    scraped.ports["api"] = there.metrics_port
    for cache, held in scraped.by("crochet_cache_bytes", "cache").items():
        values[f"{CACHE}{cache}"] = held / MB
    values["connections of Postgres"] = _number(there, "SELECT count(*) FROM pg_stat_activity WHERE client_port > 0")
    for table, size in steps.sql(there.process, _SIZES):
        values[f"{TABLE}{table}"] = int(str(size)) / MB
    values["messages in queues"] = sum(queue.get("messages", 0) for queue in there.rabbitmq.api("GET", "/queues"))
    values["pieces of open work"] = _number(there, "SELECT count(*) FROM work WHERE state = 'open'")
    return Sample(seconds, texts, dict(values))


_SIZES = """
SELECT coalesce(parent.relname, each.relname), sum(pg_total_relation_size(each.oid))
  FROM pg_class each
  LEFT JOIN pg_inherits ON inhrelid = each.oid
  LEFT JOIN pg_class parent ON parent.oid = inhparent
 WHERE each.relnamespace = 'public'::regnamespace AND each.relkind = 'r'
 GROUP BY 1 ORDER BY 1
"""


def _number(there: Everything, query: str) -> float:
    [(number,)] = steps.sql(there.process, query)
    return float(str(number))


def _add(values: defaultdict[str, float], name: str, pids: Iterable[int], memory: Literal["rss", "uss"]) -> None:
    """Memory of these processes, added up, and their open files.

    `rss`, also what they share: of a process that was forked the part that is its own grows without any leak, page by
    page, as each of both writes to what they shared, by tens of MB in a collection of garbage. `uss`, their own alone:
    of Postgres the rest is one cache, of which each process has seen more and more.
    """
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            process = psutil.Process(pid)
            values[f"{MEMORY}{name}"] += getattr(process.memory_full_info(), memory) / MB
            values[f"{FILES}{name}"] += process.num_fds()


class Trend(NamedTuple):
    """How something went: its mean in the first and in the last tenth after the warm-up, and its largest value.

    `hourly`: growth in an hour by a straight line through all values after the warm-up, as a share of the first;
    `per_text` in the unit of the values.
    """

    first: float
    last: float
    most: float
    hourly: float
    per_text: float


def trends(samples: Sequence[Sample]) -> Mapping[str, Trend]:
    """Of all that was measured, by name; `samples` are those after the warm-up, at least ten."""
    names = sorted({name for each in samples for name in each.values})
    hours, texts = [each.seconds / SECONDS_PER_HOUR for each in samples], [each.texts for each in samples]
    few = max(1, len(samples) // 10)
    found = {}
    for name in names:
        values = [each.values.get(name, 0.0) for each in samples]
        first, last = statistics.fmean(values[:few]), statistics.fmean(values[-few:])
        slope = statistics.linear_regression(hours, values).slope
        per_text = statistics.linear_regression(texts, values).slope
        found[name] = Trend(first, last, max(values), slope / first if first else 0.0, per_text)
    return found
