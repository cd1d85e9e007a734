"""The image and docker-compose.yml in a real Docker engine: `make test-deploy`. Without an engine they fail.

The first half takes RabbitMQ and Redis of pytest-celery, in the images of docker-compose.yml, and puts our image in the
place of its worker. The second half starts docker-compose.yml as it is.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RabbitMQTestBroker,
    RedisTestBackend,
)
from pytest_docker_tools import build, container, fxtr  # type: ignore[import-untyped] # it ships no types

from crochet_tasks.schemas.reports import OrthoLine
from tests.acceptance.deploy.conftest import IMAGES
from tests.support import oracle
from tests.support.compose import Deployment, polled
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.deploy,
    pytest.mark.timeout(1800),  # images are pulled and built
    # The clients of Docker and of the brokers, which pytest-celery opens, leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HARBOUR = ROOT / "examples" / "harbour.txt"
LOCALLY = ("127.0.0.1",)
"""where ports of containers are published, each on any free one"""


# ── a worker of ours among the containers of pytest-celery ──────────────────────────────────────


class CrochetWorker(CeleryWorkerContainer):
    """Our image as pytest-celery's worker: nothing is copied into it, its command is the program's."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return ["worker", "--queues", cls.worker_queue(), *args]

    @classmethod
    def worker_queue(cls) -> str:
        return "search"


crochet_image = build(path=str(ROOT), tag=f"crochet-tasks:test-{uuid.uuid4().hex[:8]}")

crochet_postgres = container(
    image=IMAGES["postgres"],
    environment={"POSTGRES_PASSWORD": "postgres"},
    ports={"5432/tcp": LOCALLY},
    network="{default_pytest_celery_network.name}",
    timeout=120,
)

default_worker_container = container(
    image="{crochet_image.id}",
    command=fxtr("default_worker_command"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=CrochetWorker,
    timeout=120,
)


@pytest.fixture
def default_rabbitmq_broker_image() -> str:
    return str(IMAGES["rabbitmq"])


@pytest.fixture
def default_redis_backend_image() -> str:
    return str(IMAGES["redis"])


@pytest.fixture
def default_rabbitmq_broker_ports() -> dict[str, object]:
    return {"5672/tcp": LOCALLY}


@pytest.fixture
def default_redis_backend_ports() -> dict[str, object]:
    return {"6379/tcp": LOCALLY}


@pytest.fixture
def celery_broker_cluster(celery_rabbitmq_broker: RabbitMQTestBroker) -> CeleryBrokerCluster:
    """RabbitMQ only: quorum queues are its own."""
    return CeleryBrokerCluster(celery_rabbitmq_broker)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: RedisTestBackend) -> CeleryBackendCluster:
    return CeleryBackendCluster(celery_redis_backend)


@pytest.fixture
def default_worker_container_cls() -> type[CrochetWorker]:
    return CrochetWorker


@pytest.fixture
def default_worker_env(
    celery_worker_cluster_config: dict[str, Any],
    crochet_image: Any,
    default_pytest_celery_network: Any,
    docker_client: Any,
    crochet_postgres: Any,
) -> dict[str, str]:
    """The settings of the worker, whose database has been migrated by a container of the same image."""
    (broker,) = celery_worker_cluster_config["celery_broker_cluster_config"]["urls"]
    (backend,) = celery_worker_cluster_config["celery_backend_cluster_config"]["urls"]
    host = crochet_postgres.attrs["Config"]["Hostname"]
    environment = {
        "CROCHET_DATABASE_URL": f"postgresql://postgres:postgres@{host}:5432/postgres",
        "CROCHET_BROKER_URL": broker,
        "CROCHET_REDIS_URL": backend,
    }
    docker_client.containers.run(
        crochet_image.id, ["migrate"], environment=environment, network=default_pytest_celery_network.name, remove=True
    )
    return environment


def broker_url(setup: CeleryTestSetup) -> str:
    """The broker as this process reaches it; after a restart it has another port.

    pytest-celery's own `host_url` joins "localhost" to the port *inside* the container where a file /.dockerenv exists,
    as on a machine that is itself made from an image: nothing listens there.
    """
    container = setup.broker.container
    container.reload()
    return f"amqp://{LOCALLY[0]}:{container.ports['5672/tcp'][0]}//"


def queues_of(setup: CeleryTestSetup) -> list[dict[str, Any]] | None:
    """What the worker says that it consumes; None while it says nothing."""
    name = setup.worker.container.attrs["Config"]["Hostname"]
    with Celery(broker=broker_url(setup)) as app:
        inspect = app.control.inspect(pattern=f"*@{name}", matcher="glob", limit=1, timeout=5)
        return next(iter((inspect.active_queues() or {}).values()), None)


def test_a_worker_consumes_a_quorum_queue_also_after_its_broker_was_restarted(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(docker=True)
    (before,) = polled(lambda: queues_of(celery_setup))
    assert (before["name"], before["queue_arguments"]["x-queue-type"]) == ("search", "quorum")
    celery_setup.broker.restart()
    (after,) = polled(lambda: queues_of(celery_setup))
    assert after == before


def test_a_worker_ends_well_when_it_is_told_to(celery_setup: CeleryTestSetup, docker_client: Any) -> None:
    """`docker stop` is SIGTERM: no task is running, so it ends at once, with 0."""
    polled(lambda: queues_of(celery_setup))
    worker: CeleryTestWorker = celery_setup.worker
    worker.kill("SIGTERM")
    assert docker_client.containers.get(worker.container.id).wait(timeout=20)["StatusCode"] == 0, worker.logs()


# ── docker-compose.yml ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def deployment(docker_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("keys"))
    try:
        deployment.up()
        yield deployment
    except BaseException:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            print(deployment.compose("ps", "--all"), deployment.compose("logs", "--tail", "100"))  # noqa: T201 - pytest shows it
        raise
    finally:
        deployment.compose("down", "--volumes", "--rmi", "local", seconds=300)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_text_goes_through_the_deployment(deployment: Deployment) -> None:
    """From one end to the other, through two search workers: every ortho, each once."""
    text = HARBOUR.read_text()
    deployment.crochet("ingest", "-", "--corpus", "harbour", given=text)
    corpus = polled(deployment.corpus)
    lines = [
        OrthoLine.model_validate_json(line) for line in deployment.crochet("export", "--corpus", "harbour").splitlines()
    ]
    orthos = {(tuple(line.shape), tuple(line.words)): line.born for line in lines}
    assert orthos == oracle.closure([text])
    assert len(orthos) == len(lines) == corpus.total


def test_flower_is_reached_through_the_jump_host_and_wants_a_login(deployment: Deployment) -> None:
    with deployment.tunnel("flower:5555") as flower:
        assert status(f"{flower}/healthcheck") == 200
        workers = f"{flower}/api/workers?refresh=1"
        assert status(workers) == 401
        login = {"Authorization": f"Basic {b64encode(b'user:password').decode()}"}

        def seen() -> bool:
            with urllib.request.urlopen(urllib.request.Request(workers, headers=login), timeout=30) as answer:
                return len(json.load(answer)) == 4  # ingest, orthos and two that search: it asks them, as its own user

        polled(seen)


def test_the_console_is_on_the_admin_port_only(deployment: Deployment) -> None:
    public = f"http://127.0.0.1:{deployment.api}"
    assert status(f"{public}/health/live") == 200
    assert [status(f"{public}/{path}") for path in ("console", "console/keys", "%63onsole", "/console")] == [403] * 4
    with deployment.tunnel("proxy:8081") as admin:
        assert status(f"{admin}/console") == 401  # from the API, which asks for a key


def test_the_jump_host_lets_nothing_else_pass_and_logs_who_came(deployment: Deployment, docker_client: Any) -> None:
    def tried(*arguments: str) -> str:
        done = subprocess.run(
            deployment.ssh(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (255, ""), done
        return done.stderr

    assert "administratively prohibited" in tried("-W", "redis:6379")
    assert "administratively prohibited" in tried("-W", "api:9464")
    tried("-t")  # a shell
    fingerprint = subprocess.check_output(["ssh-keygen", "-l", "-f", deployment.key], text=True).split()[1]
    log = deployment.compose("logs", "--no-log-prefix", "bastion")
    assert f"ED25519 {fingerprint}" in log
    assert "target redis port 6379" in log
    (container,) = deployment.compose("ps", "--quiet", "bastion").split()
    published = [ports for each in docker_client.containers.list() for ports in each.ports.values() if ports]
    assert len(published) == 2, published  # the proxy's and this one's
    assert docker_client.containers.get(container).attrs["State"]["Health"]["Status"] == "healthy"


def restarted(container: Any, since: str) -> bool:
    container.reload()
    state = container.attrs["State"]
    return bool(state["StartedAt"] != since and state["Health"]["Status"] == "healthy")


def test_an_api_is_killed_and_one_hangs_and_the_other_one_answers(deployment: Deployment, docker_client: Any) -> None:
    """Docker starts again the one that was killed, and its health check the one that hangs."""
    first, second = (docker_client.containers.get(name) for name in deployment.compose("ps", "--quiet", "api").split())
    since = [container.attrs["State"]["StartedAt"] for container in (first, second)]
    url = f"http://127.0.0.1:{deployment.api}/health/live"
    # As if the process crashed: after `docker kill` Docker would not start it again.
    crash = "import os, signal\nfor each in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
    crash += " each in (1, os.getpid()) or os.kill(each, signal.{})"
    first.exec_run(["python", "-c", crash.format("SIGKILL")])
    assert {status(url) for _ in range(50)} == {200}
    polled(lambda: restarted(first, since[0]))

    second.exec_run(["python", "-c", crash.format("SIGSTOP")])
    polled(lambda: {status(url) for _ in range(20)} == {200})  # the proxy asks every two seconds
    polled(lambda: restarted(second, since[1]), 300)


def test_passwords_are_changed_by_env_and_up(deployment: Deployment) -> None:
    """Of all services at once: roles runs again, then the services are started with theirs."""
    deployment.variables.update({f"{user}_PASSWORD": uuid.uuid4().hex for user in ("API", "WORKER", "RELAY", "FLOWER")})
    deployment.up()
    text = "The harbour wakes. The harbour sleeps."
    deployment.crochet("ingest", "-", "--corpus", "after", given=text)
    polled(lambda: deployment.corpus("after"))


def test_services_are_scaled_healthy_and_stop_with_0(deployment: Deployment) -> None:
    """The last test of this deployment: it ends it."""

    def containers() -> list[dict[str, Any]]:
        """Compose 2.21 and later print one object a line."""
        return [json.loads(line) for line in deployment.compose("ps", "--all", "--format", "json").splitlines()]

    running = [found for found in containers() if found["Service"] not in {"migrate", "roles", "bastion-keys"}]
    names = [found["Service"] for found in running]
    assert (names.count("search"), names.count("api")) == (2, 2)
    assert all((found["State"], found["Health"]) == ("running", "healthy") for found in running), running
    deployment.compose("stop", "api", "relay", "ingest", "search", "orthos", "flower")
    ours = [
        found for found in containers() if found["Service"] not in {"postgres", "rabbitmq", "redis", "proxy", "bastion"}
    ]
    assert {found["Service"]: found["ExitCode"] for found in ours if found["ExitCode"] != 0} == {}
