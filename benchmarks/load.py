"""Clients of the API that each send a request as soon as the one before is answered; a process of its own.

It reads a Plan as JSON on standard input and writes what it measured, a Load, as JSON on standard output. `run` starts
one. Nothing of the project is imported: the clients' CPU time is measured and reported.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

PATIENCE_SECONDS = 30.0


class ApiRequest(NamedTuple):
    """A request; `{n}` in its body or headers is replaced by a number that is unique within the plan."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None = None
    expected: Sequence[int] = (200,)

    def instead_of(self, name: str, other: str) -> ApiRequest:
        """The same with another name in its path and headers."""
        headers = {key: value.replace(name, other) for key, value in self.headers.items()}
        return self._replace(path=self.path.replace(name, other), headers=headers)

    def numbered(self, number: int) -> tuple[str, str, bytes | None, dict[str, str]]:
        body = None if self.body is None else self.body.replace("{n}", str(number)).encode()
        headers = {name: value.replace("{n}", str(number)) for name, value in self.headers.items()}
        return self.method, self.path, body, headers


class Plan(NamedTuple):
    """So many clients go round these requests for so long, each from a place of its own on; and once at least."""

    port: int
    clients: int
    seconds: float
    requests: list[ApiRequest]
    first: int = 0
    """where the numbers begin"""


@dataclasses.dataclass
class Load:
    """The result: `ms` of every answer, ascending; `cpu`: CPU seconds of all clients."""

    ms: list[float]
    errors: dict[str, int]
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return len(self.ms) / self.seconds

    def percentile(self, share: float) -> float:
        """The least of `ms` that so large a share of all answers did not exceed."""
        return self.ms[math.ceil(share * len(self.ms)) - 1]


def run(plan: Plan) -> Load:
    """Carry out a plan in a process of its own."""
    command = [sys.executable, "-S", "-m", "benchmarks.load"]  # without site packages: it starts faster
    done = subprocess.run(command, input=json.dumps(plan), check=True, capture_output=True, text=True)
    return Load(**json.loads(done.stdout))


class _Clients:
    """All clients of a plan; each is a thread with one connection, which is open before the clock runs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ms: list[float] = []
        self.errors: Counter[str] = Counter()
        self._numbers = itertools.count(plan.first)
        self._ready = threading.Barrier(plan.clients, action=self._begin)
        self._until = 0.0
        self.began = 0.0

    def run(self) -> Load:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.plan.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - self.began
        return Load(sorted(self.ms), dict(self.errors), seconds, time.process_time())

    def _begin(self) -> None:
        self.began = time.perf_counter()
        self._until = self.began + self.plan.seconds

    def _client(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.plan.port, timeout=PATIENCE_SECONDS)
        connection.connect()
        self._ready.wait()
        while True:
            each = next(self._numbers)
            request = self.plan.requests[(number + each) % len(self.plan.requests)]
            sent = time.perf_counter()
            try:
                connection.request(*request.numbered(each))
                answer = connection.getresponse()
                answer.read()
                problem = None if answer.status in request.expected else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()  # the next request opens it again
                problem = type(error).__name__
            now = time.perf_counter()
            self.ms.append(1000 * (now - sent))
            if problem is not None:
                self.errors[problem] += 1
            if now >= self._until:
                break
        connection.close()


def main() -> None:
    port, clients, seconds, requests, first = json.load(sys.stdin)
    load = _Clients(Plan(port, clients, seconds, [ApiRequest(*each) for each in requests], first)).run()
    json.dump(dataclasses.asdict(load), sys.stdout)


if __name__ == "__main__":
    main()
