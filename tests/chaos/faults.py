"""What happens to a deployment, each for a moment: processes and servers die or stop, connections break."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.support import services
from tests.support.cluster import Cluster
from tests.support.deployed import frozen
from tests.support.proxy import Proxy

SHORT_SECONDS = (0.3, 4.0)
"""how long something is stopped, stalled or slow; twice a worker's heartbeat is 4 s"""


class Bench(NamedTuple):
    """All that a fault may strike."""

    deployment: Cluster
    postgres: services.Postgres
    standby: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis
    proxies: dict[str, Proxy]
    small_disk: bool
    """whether Postgres has a disk of its own, which can be filled"""
    chance: random.Random

    def service(self, *kinds: str) -> str:
        """One that has begun to serve; of these kinds, or of any."""
        ready = [
            name
            for name in sorted(self.deployment.processes)
            if self.deployment.has_been_ready(name) and (not kinds or name.partition("-")[2] in kinds)
        ]
        return self.chance.choice(ready)

    def pause(self) -> None:
        time.sleep(self.chance.uniform(*SHORT_SECONDS))


def kill_service(bench: Bench) -> str:
    name = bench.service()
    bench.deployment.kill(name)
    bench.deployment.start_again(name)
    return f"kill -9 {name.partition('-')[2]}"


def kill_main(bench: Bench) -> str:
    """The main process of a worker alone, as the OOM killer does."""
    name = bench.service("worker")
    with contextlib.suppress(ProcessLookupError):
        os.kill(bench.deployment.processes[name].pid, signal.SIGKILL)
    return "kill -9 main process of a worker"


def kill_child(bench: Bench) -> str:
    name = bench.service("worker", "api")
    children = bench.deployment.children(name)
    if children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(bench.chance.choice(children), signal.SIGKILL)
    return f"kill -9 child of {name.partition('-')[2]}"


def end_service(bench: Bench) -> str:
    name = bench.service()
    bench.deployment.terminate(name)
    return f"SIGTERM {name.partition('-')[2]}"


def stop_service(bench: Bench) -> str:
    """A process and its children, SIGSTOP and SIGCONT."""
    name = bench.service()
    pids = [bench.deployment.processes[name].pid, *bench.deployment.children(name)]
    with _stopped(pids):
        bench.pause()
    return f"SIGSTOP {name.partition('-')[2]}"


@contextlib.contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    def signal_all(number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(signal.SIGCONT)


def kill_rabbitmq(bench: Bench) -> str:
    bench.rabbitmq.settle()
    bench.rabbitmq.kill()
    bench.rabbitmq.start()
    return "kill -9 RabbitMQ"


def kill_postgres(bench: Bench) -> str:
    bench.postgres.stop(mode="immediate")
    bench.postgres.start()
    return "immediate stop of Postgres"


def kill_standby(bench: Bench) -> str:
    bench.standby.stop(mode="immediate")
    bench.standby.start()
    return "immediate stop of the standby"


def kill_redis(bench: Bench) -> str:
    bench.redis.kill()
    bench.redis.start()
    return "kill -9 Redis"


def fill_disk(bench: Bench) -> str:
    """The disk of Postgres is full: where that hits its log it ends, and starts again when there is room."""
    ballast = bench.postgres.folder / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        bench.pause()
    finally:
        ballast.unlink()
    bench.postgres.start()
    return FULL_DISK


FULL_DISK = "the disk of Postgres is full"


def freeze(bench: Bench) -> str:
    server = bench.chance.choice([bench.rabbitmq, bench.postgres, bench.standby, bench.redis])
    with frozen(server):
        bench.pause()
    return f"SIGSTOP {type(server).__name__}"


def _network(act: Callable[[Proxy, Bench], None], what: str) -> Callable[[Bench], str]:
    def happens(bench: Bench) -> str:
        name = bench.chance.choice(sorted(bench.proxies))
        act(bench.proxies[name], bench)
        return f"{what} {name}"

    return happens


def _stall(proxy: Proxy, bench: Bench) -> None:
    proxy.stall()
    bench.pause()
    proxy.heal()


def _slow(proxy: Proxy, bench: Bench) -> None:
    proxy.slow(20_000)
    bench.pause()
    proxy.heal()


FAULTS: dict[Callable[[Bench], str], int] = {
    kill_service: 30,
    kill_main: 8,
    kill_child: 14,
    end_service: 8,
    stop_service: 8,
    kill_rabbitmq: 2,
    kill_postgres: 4,
    kill_standby: 3,
    kill_redis: 3,
    freeze: 4,
    fill_disk: 3,
    _network(lambda proxy, _: _discard(proxy.cut()), "connections cut:"): 6,
    _network(lambda proxy, _: _discard(proxy.half_open()), "connections half open:"): 3,
    _network(_stall, "network stalls:"): 4,
    _network(_slow, "network slow:"): 3,
}
"""what may happen, and how often in relation to the others"""


def _discard(_: object) -> None: ...


def strike(bench: Bench) -> str:
    """Have something happen; its name."""
    possible = {fault: weight for fault, weight in FAULTS.items() if bench.small_disk or fault != fill_disk}
    happens = bench.chance.choices(list(possible), list(possible.values()))[0]
    return happens(bench)


def is_kill(name: str) -> bool:
    return name.startswith(("kill -9", "immediate", "SIGTERM"))
