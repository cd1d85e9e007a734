"""Fixtures: real servers, each started when a test first asks for it and ended with the session; fresh places in them.

    postgres, rabbitmq, redis_server   those of tests/support/services.py, one of each per pytest-xdist worker
    distributed_database               the URL of a new, migrated database in `postgres`
    pooled_database                    the same database through PgBouncer in transaction mode
    vhost                              the AMQP URL of a new vhost in `rabbitmq`
    redis_url                          the URL of `redis_server`, which holds no keys
    server                             the URL of a private (embedded) Postgres, one per pytest-xdist worker
    empty, database                    the URL of a new database in `server`: without a schema, with the migrated one
    ready_state                        a state folder of a private Postgres, with a migrated database that is empty

Tests may stop and kill the servers: later tests find them running when they ask for a database, vhost or Redis of these
fixtures, or call `start`, which does nothing where there is nothing to do. Where a package is missing the
tests skip; in CI they fail.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from crochet_tasks.cli.program import COLLECT
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded import server as embedded
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.services.setup import imported
from crochet_tasks.settings import Settings, remember
from tests.support import kernel_builds, paths, services
from tests.support.haproxy import HAProxy
from tests.support.pgbouncer import PgBouncer
from tests.support.server import Missing, Server, fail_or_skip

# The default run takes the same examples each time, half of those that tests name; `make fuzz` takes others, 20 times
# as many.
_ANY_SPEED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("same", deadline=None, derandomize=True, max_examples=50, suppress_health_check=_ANY_SPEED)
settings.register_profile("fuzz", settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.register_profile("few", settings.get_profile("same"), max_examples=20)
settings.load_profile("same")

_numbers = itertools.count()
AnyServer = TypeVar("AnyServer", bound=Server)

remember("XDG_CONFIG_HOME", os.devnull)  # no settings file of the user
SERVERS = {"postgres", "rabbitmq", "redis_server", "server"}
"""fixtures"""
POOLED = 3
"""connections that PgBouncer has to a database: fewer than its clients"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """For `make fuzz`, see tests/integration/api/test_schema.py and tests/support/kernel_builds.py."""
    parser.addoption("--kernel", choices=kernel_builds.NAMES, help="run with another build of the engine's kernel")
    parser.addoption("--fuzz-examples", type=int, help="requests that are made up for each operation of the API")
    parser.addoption("--fuzz-seed", type=int, help="make up others than in CI: those of this number")


def pytest_configure(config: pytest.Config) -> None:
    gc.set_threshold(*COLLECT)
    if folder := paths.memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)  # noqa: TID251 - pytest's setting, not ours
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in a job in the background: children would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if kernel_builds.stale():
        pytest.exit("the engine was compiled before its sources changed: run `make venv`", returncode=4)
    if name := config.getoption("kernel"):
        kernel_builds.install(kernel_builds.path(name))


def pytest_report_header() -> str:
    return f"kernel: {kernel_builds.installed().__file__}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: with several processes none waits long for another at the end.

    Raises UsageError for a test that needs a server and is not marked so: `make test-fast` would run it.
    """
    for item in items:
        needed = SERVERS & {*getattr(item, "fixturenames", ())}
        if needed and not any(map(item.get_closest_marker, ("integration", "acceptance", "deploy"))):
            raise pytest.UsageError(f"{item.nodeid} needs {', '.join(sorted(needed))}: mark it `integration`")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    imported()  # and thousands of tests, which last for the run: collections took a tenth of its CPU


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """The tests of a file run in one process, so that what a module's fixtures start is started once."""
    if config.option.dist != "load":  # another one is chosen
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped] # it ships no types

    config.option.loadscopereorder = False  # the order is ours
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def own_log_level() -> None:
    """What a test's worker or command made of the root logger is not the next one's."""
    logging.getLogger().setLevel(logging.WARNING)


def serve(make: Callable[[Path], AnyServer], factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    folder = factory.mktemp("server")
    try:
        server = make(folder)
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program
    try:
        server.start()
        yield server
    finally:
        server.kill()  # the data is not needed any more, and RabbitMQ takes seconds to stop
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Postgres]:
    yield from serve(services.Postgres, tmp_path_factory)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.RabbitMQ]:
    yield from serve(services.RabbitMQ, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Redis]:
    yield from serve(services.Redis, tmp_path_factory)


@pytest.fixture(scope="session")
def distributed_template(postgres: services.Postgres) -> str:
    """The name of a migrated database that no test writes to."""
    postgres.start()
    url = postgres.new_database()
    migrate(url)
    return str(make_url(url).database)


def migrate(url: str) -> None:
    database = Database(url, Settings())
    schema.migrate(database)
    database.close()


@pytest.fixture
def distributed_database(postgres: services.Postgres, distributed_template: str) -> Iterator[str]:
    postgres.start()
    url = postgres.new_database(distributed_template)
    yield url
    if postgres.running:
        postgres.drop_database(url)


@pytest.fixture
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., HAProxy]]:
    """Starts one before the servers on these ports, by kind: `haproxy(api=[8080, 8081], canary=[8082])`."""
    with contextlib.ExitStack() as opened:

        def started(**servers: Sequence[int]) -> HAProxy:
            serving = contextlib.contextmanager(serve)
            return opened.enter_context(serving(lambda folder: HAProxy(folder, servers), tmp_path_factory))

        yield started


@pytest.fixture(scope="session")
def pgbouncer(postgres: services.Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    yield from serve(lambda folder: PgBouncer(folder, postgres, POOLED), tmp_path_factory)


@pytest.fixture
def pooled_database(pgbouncer: PgBouncer, distributed_database: str) -> str:
    pgbouncer.start()
    return pgbouncer.pooled(distributed_database)


@pytest.fixture
def vhost(rabbitmq: services.RabbitMQ) -> Iterator[str]:
    rabbitmq.start()
    url = rabbitmq.new_vhost()
    yield url
    if rabbitmq.running:
        rabbitmq.delete_vhost(url)


@pytest.fixture
def redis_url(redis_server: services.Redis) -> str:
    redis_server.start()
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server's own database. It need not survive a power cut, so it does not wait for the disk."""
    private = EmbeddedPostgres(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:  # for this one only: others are killed to see what survives
        patch.setitem(embedded.SETTINGS, "fsync", "off")
        patch.setitem(embedded.SETTINGS, "synchronous_commit", "off")
        private.start()
    with private:
        yield private.url


def connect(server: str) -> Connection:
    """A database is created and dropped outside of transactions."""
    return create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect()


@pytest.fixture(scope="session")
def create(server: str) -> Callable[[str], str]:
    """Makes a database as a copy of another one (template1: an empty one) and returns its URL.

    Copying files takes half of the time of the default, which copies block by block and writes all to the log.
    """

    def new(template: str) -> str:
        name = f"test_{next(_numbers)}"
        with contextlib.closing(connect(server)) as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
        return make_url(server).set(database=name).render_as_string()

    return new


@pytest.fixture(scope="session")
def migrated(create: Callable[[str], str]) -> str:
    """The name of a migrated database that no test writes to."""
    url = create("template1")
    migrate(url)
    return str(make_url(url).database)


@pytest.fixture
def empty(server: str, create: Callable[[str], str]) -> Iterator[str]:
    yield from dropped(server, create("template1"))


@pytest.fixture
def database(server: str, create: Callable[[str], str], migrated: str) -> Iterator[str]:
    yield from dropped(server, create(migrated))


def dropped(server: str, url: str) -> Iterator[str]:
    """Each holds some 10 MB: a thousand tests would fill a small disk."""
    yield url
    with contextlib.closing(connect(server)) as connection:
        connection.execute(text(f"DROP DATABASE {make_url(url).database} WITH (FORCE)"))


@pytest.fixture(scope="session")
def state_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied: initdb takes ten times as long, and then there are the migrations."""
    state = tmp_path_factory.mktemp("template") / "state"
    with EmbeddedPostgres(state) as server:
        migrate(server.url)
    return state


@pytest.fixture
def ready_state(state_template: Path, tmp_path: Path) -> Path:
    state = tmp_path / "state"
    subprocess.run(["cp", "-a", str(state_template), str(state)], check=True)  # with the owners of its files
    return state


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the ends of its servers' logs."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for server in item.funcargs.values():
            if isinstance(server, Server):
                report.sections.append((f"{type(server).__name__} {server.log}", server.tail()))
    return report
