"""Metrics of a deployment's services, read as Prometheus reads them."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import Cluster
from tests.support.faulty import faulty
from tests.support.server import take_port
from tests.support.waiting import SECONDS

Labels = tuple[tuple[str, str], ...]


class Scraped:
    """The services of a deployment, asked as Prometheus asks them; values of the same series are added up."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}

    def start(self, deployment: Cluster, *command: str, **environment: str) -> str:
        """One that is quick to notice that a child is dead, and to count, and that overlooks cancelled consumers."""
        port = take_port()
        name = deployment.start(*command, program=faulty("overlook"), CROCHET_METRICS_PORT=str(port), **environment)
        self.ports[name] = port
        return name

    def samples(self, *names: str) -> dict[tuple[str, Labels], float]:
        found: dict[tuple[str, Labels], float] = defaultdict(float)
        for name in names or self.ports:
            answer = httpx.get(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=SECONDS)
            assert answer.status_code == 200
            for family in text_string_to_metric_families(answer.text):
                for sample in family.samples:
                    found[sample.name, tuple(sorted(sample.labels.items()))] += sample.value
        return found

    def by(self, metric: str, label: str, *names: str, **wanted: str) -> Counter[str]:
        """The values of a metric by one of its labels, added up over the others."""
        found: Counter[str] = Counter()
        for (name, labels), value in self.samples(*names).items():
            if name == metric and wanted.items() <= dict(labels).items() and value:
                found[dict(labels)[label]] += int(value)
        return found

    def value(self, metric: str, *names: str, **labels: str) -> float:
        found = self.samples(*names).items()
        return float(sum(v for (name, has), v in found if name == metric and labels.items() <= dict(has).items()))

    @contextmanager
    def all_the_time(self) -> Iterator[list[str]]:
        """Scrape without a pause; what went wrong with it."""
        wrong: list[str] = []
        stopped = threading.Event()

        def scrape() -> None:
            while not stopped.is_set():
                try:
                    self.samples()
                except (httpx.HTTPError, AssertionError, ValueError) as error:
                    wrong.append(repr(error))
                stopped.wait(0.2)

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield wrong
        finally:
            stopped.set()
            thread.join()
