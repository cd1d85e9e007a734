"""The API under clients that try to block it: an honest client gets fast answers meanwhile and afterwards.

Before the server was replaced (docs/adr/0016) others waited for 16 to 34 seconds. The bounds are generous: they hold on
a machine many times slower, and are far from that. benchmarks/attacks.py measures what one really waits.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time
from collections.abc import Iterator

import pytest

from crochet_tasks.access import keys
from crochet_tasks.db.sessions import Database
from tests.support import services
from tests.support.attacks import ATTACKS, attack
from tests.support.cluster import Cluster, cluster, until
from tests.support.commands import CROCHET
from tests.support.server import HOST, take_port
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

REQUESTS = 60
MEDIAN_SECONDS, WORST_SECONDS = 1.0, 5.0
CALM = 10
"""times as long as without an attack is fine where even that takes long: on a machine with much else to do"""
FILES = 1024
FEW_FILES = (
    "half heads, 2150 connections",
    "slow bodies, 1300 connections",
    "slow bodies with a key, 1300 connections",
)
LIMITED = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh", *CROCHET)
IN_SHORT = {
    (CROCHET, "one-byte chunks, 32 connections"),
    (CROCHET, "a burst of empty lines, 1800 connections"),
    (CROCHET, "slow bodies with a key, 1300 connections"),
    (LIMITED, "half heads, 2150 connections"),
}
"""in the default run; `make test-long` tries the others"""


@pytest.fixture(scope="module")
def deployed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: services.Postgres,
    distributed_template: str,
) -> Iterator[Cluster]:
    """An API whose processes may open as many files as here, or 1024 each."""
    postgres.start()
    url = postgres.new_database(distributed_template)
    settings = {
        "CROCHET_DATABASE_URL": url,
        "CROCHET_API_PORT": str(take_port()),
        "CROCHET_API_RATE_ANONYMOUS": "1000000",
        "CROCHET_JWT_SECRET": "a secret of the tests, and long enough for that",
    }
    with cluster(tmp_path_factory.mktemp("attacked"), **settings) as made:
        name = made.start("api", program=request.param)
        until(lambda: made.ready(name), made)
        yield made
    postgres.drop_database(url)


def waited(port: int) -> float:
    """Seconds until a new client is answered. It tries again where its connection had to give way."""
    began = time.monotonic()
    while True:
        try:
            with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=SECONDS)) as connection:
                connection.request("GET", "/health/live")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b'{"status":"live"}')
                return time.monotonic() - began
        except ConnectionError:
            assert time.monotonic() < began + SECONDS


@pytest.mark.parametrize(
    ("deployed", "name"),
    [
        pytest.param(program, name, marks=[] if (program, name) in IN_SHORT else [pytest.mark.long])
        for program, names in ((CROCHET, ATTACKS), (LIMITED, FEW_FILES))
        for name in names
    ],
    indirect=["deployed"],
)
def test_an_honest_client_is_answered_under_attack(deployed: Cluster, name: str) -> None:
    port = deployed.settings.api_port
    [api] = deployed.processes
    family = deployed.children(api)
    with contextlib.closing(Database(database_url(deployed), deployed.settings)) as database:
        key = keys.create(database, keys.KeySpec("attacker")).key
    calm = max(waited(port) for _ in range(REQUESTS))
    with attack(port, name, key) as attacking:
        seconds = []
        while not attacking.is_whole():
            seconds.append(waited(port))
        seconds += [waited(port) for _ in range(REQUESTS)]
    assert statistics.median(seconds) < max(MEDIAN_SECONDS, CALM * calm), seconds
    assert max(seconds) < max(WORST_SECONDS, 3 * CALM * calm), seconds
    assert attacking.done["opened"] >= ATTACKS[name].connections
    assert attacking.done["sent"] >= len(ATTACKS[name].data)
    assert waited(port) < max(WORST_SECONDS, 3 * CALM * calm)
    assert deployed.children(api) == family


def database_url(deployed: Cluster) -> str:
    assert deployed.settings.database_url is not None
    return deployed.settings.database_url.get_secret_value()
