"""What an honest client of the API waits while others attack it. Writes no results.

`python -m benchmarks.attacks [SECONDS [FILES [WORD]]]`: for so many seconds of each attack, with so many open files
(0: as many as here) for a process of the API, and only attacks with this word.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from crochet_tasks.access import keys
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.attacks import ATTACKS, attack
from tests.support.cluster import cluster, until
from tests.support.commands import CROCHET
from tests.support.server import take_port

PAUSE = 0.02


def waits(port: int, seconds: float) -> list[float]:
    """Milliseconds for an answer, each time on a new connection, in order of size."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        while not answered(port):
            pass
        found.append(1000 * (time.monotonic() - began))
        time.sleep(PAUSE)
    return sorted(found)


def answered(port: int) -> bool:
    """False where the connection had to give way."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("GET", "/health/live")
            return bool(connection.getresponse().read())
        except ConnectionError:
            return False


def main(seconds: float = 5.0, files: int = 0, word: str = "") -> None:
    limit = ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh") if files else ()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        postgres = services.Postgres(Path(folder) / "postgres")
        stack.callback(postgres.kill)
        postgres.start()
        with contextlib.closing(Database(postgres.url, Settings(database_url=SecretStr(postgres.url)))) as database:
            schema.migrate(database)
            key = keys.create(database, keys.KeySpec("attacker")).key
        environment = {"CROCHET_DATABASE_URL": postgres.url, "CROCHET_API_RATE_ANONYMOUS": "100000000"}
        print("| attack | opened | answers | p50 ms | p99 ms | worst ms |\n|---|---|---|---|---|---|")
        for name in (None, *(name for name in ATTACKS if word in name)):
            made = stack.enter_context(cluster(Path(folder), **environment, CROCHET_API_PORT=str(take_port())))
            api = made.start("api", program=(*limit, *CROCHET))
            until(lambda made=made, api=api: made.ready(api), made)  # type: ignore[misc]
            port, opened = made.settings.api_port, 0
            if name:
                with attack(port, name, key) as attacking:
                    ms = waits(port, seconds)
                opened = attacking.done["opened"]
            else:
                ms = waits(port, seconds)
            made.close()
            middle, high = ms[len(ms) // 2], ms[int(len(ms) * 0.99)]
            print(f"| {name or 'none'} | {opened} | {len(ms)} | {middle:.1f} | {high:.1f} | {ms[-1]:.1f} |", flush=True)


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int, str), sys.argv[1:], strict=False)))
