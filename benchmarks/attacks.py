"""What an honest client of the API waits while others attack it: `python -m benchmarks.attacks`. Writes no results."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.attacks import ATTACKS, attack
from tests.support.cluster import cluster, until
from tests.support.server import take_port

SECONDS, PAUSE = 5.0, 0.02


def waits(port: int) -> list[float]:
    """Milliseconds for an answer, each time on a new connection, in order of size."""
    found, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        began = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/health/live")
            connection.getresponse().read()
        found.append(1000 * (time.monotonic() - began))
        time.sleep(PAUSE)
    return sorted(found)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        postgres = services.Postgres(Path(folder) / "postgres")
        stack.callback(postgres.kill)
        postgres.start()
        with contextlib.closing(Database(postgres.url, Settings(database_url=SecretStr(postgres.url)))) as database:
            schema.migrate(database)
        environment = {"CROCHET_DATABASE_URL": postgres.url, "CROCHET_API_RATE_ANONYMOUS": "100000000"}
        print("| attack | answers | p50 ms | p99 ms | worst ms |\n|---|---|---|---|---|")
        for name in (None, *ATTACKS):
            made = stack.enter_context(cluster(Path(folder), **environment, CROCHET_API_PORT=str(take_port())))
            api = made.start("api")
            until(lambda made=made, api=api: made.ready(api), made, 60)  # type: ignore[misc]
            port = made.settings.api_port
            with attack(port, name) if name else contextlib.nullcontext():
                ms = waits(port)
            made.close()
            middle, high = ms[len(ms) // 2], ms[int(len(ms) * 0.99)]
            print(f"| {name or 'none'} | {len(ms)} | {middle:.1f} | {high:.1f} | {ms[-1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
