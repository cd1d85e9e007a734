"""`crochet up` on a real RabbitMQ and Redis: what runs, what comes back, what Flower shows, and how all of it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest

from crochet_tasks import publish
from crochet_tasks.broker.queues import WORK, dead
from crochet_tasks.embedded.server_process import cluster_name, find_processes
from crochet_tasks.schemas.reports import OrthoLine
from crochet_tasks.services import serving
from crochet_tasks.services.up import SEARCH_NICE
from tests.support import oracle, services
from tests.support.cli import HARBOUR, crochet
from tests.support.programs import Service, addresses, basic, gone, refused, service, status_of
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.acceptance

LOGIN = "ann:se,cret"
"""with a comma, at which Flower would cut"""
DEAD = {f"search@lost-host-{number}" for number in range(1000)}
NAMES = {"relay", "stages", "search", "orthos", "api", "flower"}


# ── one that runs, for tests that read ──────────────────────────────────────────────────────────


class Up(Service):
    """`crochet up` on a private database. The names of its workers do not depend on who else runs on this machine."""

    def __init__(self, state: Path, *options: str, **settings: str) -> None:
        settings["CROCHET_HEALTH_DIR"] = str(state.parent / "health")
        super().__init__("up", "--state", state, "--search", 1, *options, **settings)
        self.state, self.settings = state, settings

    @property
    def with_database(self) -> dict[str, str]:
        """Settings for another process that works with it."""
        return {**self.settings, "CROCHET_DATABASE_URL": self.wait_for(r"export CROCHET_DATABASE_URL='([^']+)'")[1]}


@pytest.fixture(scope="module")
def up(
    rabbitmq: services.RabbitMQ, redis_server: services.Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Up]:
    settings = addresses(rabbitmq.new_vhost(), redis_server.url)
    settings |= {"CROCHET_FLOWER_AUTH": LOGIN, "CROCHET_BROKER_API_URL": rabbitmq.api_url}
    started = Up(tmp_path_factory.mktemp("up") / "state", **settings)
    try:
        started.wait_for("everything is ready")
        yield started
    finally:
        started.end(signal.SIGKILL)


def test_everything_is_ready_and_where(up: Up) -> None:
    """Each line names who says it; the last one before work says where API, Flower and database are."""
    ready = up.wait_for(r"up +\| everything is ready; (.*)\n")[1]
    assert f"API at http://127.0.0.1:{up.settings['CROCHET_API_PORT']};" in ready
    assert f"Flower at http://127.0.0.1:{up.settings['CROCHET_FLOWER_PORT']};" in ready
    named = {line.split("|")[0].strip() for line in up.lines}
    assert named == {"up", *NAMES}
    assert "se,cret" not in up.output


def test_a_text_goes_through(up: Up) -> None:
    """From the command line into the database, through the queues, and out: the closure, as the oracle sees it."""
    done = crochet("ingest", HARBOUR, "--wait", "--json", **up.with_database)
    assert done.returncode == 0, done.stderr
    lines = crochet("export", **up.with_database).stdout.splitlines()
    orthos = [OrthoLine.model_validate_json(line) for line in lines]
    expected = oracle.closure([HARBOUR.read_text()])
    assert sorted((tuple(ortho.shape), tuple(ortho.words)) for ortho in orthos) == sorted(expected)
    assert json.loads(done.stdout)["waited"]["total"] == len(expected)


def test_the_api_answers(up: Up) -> None:
    assert status_of(f"http://127.0.0.1:{up.settings['CROCHET_API_PORT']}/health/live") == 200


# ── Flower, as an operator sees it ──────────────────────────────────────────────────────────────


def flower(up: Up, path: str) -> str:
    """A page or an API answer of Flower, after its login."""
    address = f"http://127.0.0.1:{up.settings['CROCHET_FLOWER_PORT']}{path}"
    with urllib.request.urlopen(urllib.request.Request(address, headers=basic(LOGIN)), timeout=SECONDS) as answer:
        return str(answer.read().decode())


def workers_in_flower(up: Up) -> dict[str, bool]:
    """The names on the page of workers, and whether each is online."""
    return {name: online for name, online in all_workers_in_flower(up).items() if name not in DEAD}


def all_workers_in_flower(up: Up) -> dict[str, bool]:
    return {worker["hostname"]: worker["status"] for worker in json.loads(flower(up, "/workers?json=1"))["data"]}


@pytest.fixture(scope="module")
def ended_worker(up: Up) -> str:
    """A second worker for searches, which Flower has seen and which has ended."""
    eventually(lambda: len(workers_in_flower(up)) == 3)
    before = workers_in_flower(up).keys()
    with service("worker", "--queues", "search,best", **up.with_database) as second:
        second.wait_for("ready_for_work")
        eventually(lambda: workers_in_flower(up).keys() - before)
        (name,) = workers_in_flower(up).keys() - before
        assert second.end(signal.SIGTERM) == 0
    app = celery.Celery("dead", broker=up.settings["CROCHET_BROKER_URL"], set_as_current=False)
    with app, app.connection_for_write() as broker, app.events.Dispatcher(broker) as events:
        for events.hostname in DEAD:  # as of hosts that are lost: no word of their end follows
            events.send("worker-heartbeat", freq=2.0, active=0)
    eventually(lambda: all_workers_in_flower(up).keys() >= DEAD)
    return name


def test_flower_asks_for_its_login(up: Up) -> None:
    """Pages and API alike, for the whole login; no argument that `ps` shows holds it, nor the broker's password."""
    address = f"http://127.0.0.1:{up.settings['CROCHET_FLOWER_PORT']}"
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/queues/length"):
        assert status_of(address + path) == 401
        assert status_of(address + path, "ann:se") == 401
        assert status_of(address + path, LOGIN) == 200
    arguments = " ".join(" ".join(process.cmdline()) for process in up.family())
    assert "se,cret" not in arguments
    assert "@127.0.0.1" not in arguments


def test_flower_names_workers_by_their_queues(up: Up, ended_worker: str) -> None:
    """Queues and host, no process id; so a worker that was started again is the same one. One that ended is offline."""
    host = socket.gethostname()

    def roles() -> tuple[list[str], list[str]]:
        """Of the workers that are online, and of those that are not."""
        found: tuple[list[str], list[str]] = ([], [])
        for name, is_online in workers_in_flower(up).items():
            assert name.endswith(f"@{host}"), name
            found[not is_online].append(name.removesuffix(f"@{host}"))
        return sorted(found[0]), found[1]

    # Eventually: a worker whose heartbeat is late counts as offline for a moment.
    eventually(lambda: roles() == (["orthos", "search", "stages"], ["search-2"]), report=roles)
    assert ended_worker == f"search-2@{host}"


def test_flower_shows_how_long_the_queues_are(up: Up) -> None:
    """All of them, dead-letter queues too, by RabbitMQ's management address, whichever workers Flower has seen."""

    def lengths() -> dict[str, int]:
        """By queue, once RabbitMQ has counted its messages: a new queue has none until the next statistics."""
        queues = json.loads(flower(up, "/api/queues/length"))["active_queues"]
        return {queue["name"]: queue["messages"] for queue in queues if "messages" in queue}

    eventually(lambda: lengths().keys() == {*WORK, *map(dead, WORK)})
    found = lengths()
    assert all(type(messages) is int for messages in found.values())
    page = flower(up, "/broker")
    assert all(re.search(rf">\s*{name}\s*<", page) for name in found)


def test_flower_shows_tasks_by_what_they_do(up: Up, tmp_path: Path) -> None:
    """Every stage by its name, arguments as corpus, text, and work; never what is in a text or a result."""
    columns = re.findall(r'data-column="(\w+)"', flower(up, "/tasks"))
    assert columns == ["name", "args", "kwargs", "state", "received", "runtime", "worker"]
    text = tmp_path / "text.txt"
    text.write_text(". ".join(f"{one} {other}" for one in "abcdefgh" for other in "abcdefgh" if one != other))
    assert crochet("ingest", text, "--corpus", "letters", "--wait", **up.with_database).returncode == 0
    work = r"work [0-9a-f-]{36}( and \d+ more)?"
    subjects = {
        "ingest.text": r"text-\d+, ",
        "context.version": r"text-\d+, ",
        "remediations.due": "",
        "search.part": "",
        "orthos.store": "",
    }
    assert set(subjects) == {*publish.TASKS.values(), "orthos.store"} - {"best.part"}  # no test here asks for the best

    def all_seen() -> bool:
        every = json.loads(flower(up, "/api/tasks")).values()
        tasks = [task for task in every if "corpus letters" in (task["args"] or "")]
        for task in tasks:
            assert re.fullmatch(rf"\(corpus letters, {subjects[task['name']]}{work}\)", task["args"]), task["args"]
        return {task["name"] for task in tasks if task["state"] == "SUCCESS"} == set(subjects)

    eventually(all_seen)


def test_doctor_asks_a_worker(up: Up) -> None:
    """Broker, queues, Redis, and an answer that went through all of it."""
    done = crochet("doctor", **up.with_database)
    assert done.returncode == 0, done.stdout
    for line in (
        r"broker: RabbitMQ [\d.]+ answers",
        r"queue search: 0 messages waiting, 1 consumer",
        r"redis: answers",
    ):
        assert re.search(f"(?m)^ok     {line}", done.stdout), done.stdout
    assert re.search(r"(?m)^ok     worker: process \d+ on \S+ answered in \d+ ms$", done.stdout), done.stdout


def test_searches_give_way_to_everything_else(up: Up) -> None:
    """Also where they are done: in the children of their worker."""
    search, ours = up.child("search"), os.getpriority(os.PRIO_PROCESS, 0)
    eventually(search.children)
    assert {each.nice() for each in [search, *search.children(recursive=True)]} == {min(19, ours + SEARCH_NICE)}
    assert {up.child(name).nice() for name in NAMES - {"search"}} == {ours}


@pytest.mark.parametrize("name", ["search", "relay", "api"])
def test_a_killed_service_comes_back(up: Up, name: str) -> None:
    """With its own children; the log has it."""
    before = len(up.lines)
    killed = up.child(name)
    family = [killed, *killed.children(recursive=True)]
    killed.kill()
    assert gone(family)
    up.wait_for(rf"up +\| {name} was ended by SIGKILL; it is started again in \d", before)
    up.wait_for(rf"{name} +\| .*ready_for_work", before)
    assert up.child(name).pid != killed.pid


def test_a_killed_database_comes_back(up: Up) -> None:
    """At the same address; what works with it goes on."""
    before = len(up.lines)
    [server] = find_processes(cluster_name(up.state / "postgres" / "data"), servers_only=True)
    os.kill(server, signal.SIGKILL)
    up.wait_for(r"the private Postgres has died", before)
    eventually(lambda: crochet("status", **up.with_database).returncode == 0)


def test_a_state_folder_has_one_up(up: Up) -> None:
    """The second one is refused and leaves the first one alone."""
    done = crochet("up", "--state", up.state, **up.settings)
    refused(done, 4, "state_in_use", str(up.pid))


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_ctrl_c_ends_everything(tmp_path: Path, servers: dict[str, str]) -> None:
    """In order, and nothing has to be killed; no process stays, and no server."""
    up = Up(tmp_path / "state", **servers)
    try:
        up.wait_for("everything is ready")
        family = up.family()
        assert up.end(signal.SIGINT) == 130, up.output
        assert gone(family)
        assert not find_processes(cluster_name(tmp_path / "state" / "postgres" / "data"))
        assert up.lines[-1].endswith("everything has ended\n")
        assert "killed" not in up.output
        assert "[internal]" not in up.output
    finally:
        up.end(signal.SIGKILL)


def test_nothing_survives_a_kill(tmp_path: Path, servers: dict[str, str]) -> None:
    """Also not the children's children, nor the database, which can be started again at once."""
    up = Up(tmp_path / "state", "--no-flower", **servers)
    try:
        up.wait_for("everything is ready")
        family = up.family()
    finally:
        up.end(signal.SIGKILL)
    assert gone(family)
    assert not find_processes(cluster_name(tmp_path / "state" / "postgres" / "data"))
    assert crochet("status", "--state", tmp_path / "state").returncode == 0


@pytest.mark.long
def test_a_second_signal_ends_it_at_once(servers: dict[str, str], postgres: services.Postgres) -> None:
    """A worker that hangs is killed after the drain. A given database is migrated, and the log has it."""
    settings = {**servers, "CROCHET_DATABASE_URL": postgres.new_database(), "CROCHET_ENVIRONMENT": "production"}
    with service("up", "--search", 1, **settings) as up:
        up.wait_for(r"up +\| the schema of the database is migrated: none -> ")
        up.wait_for(r"up +\| without Flower: CROCHET_FLOWER_AUTH is not set")
        assert "CROCHET_DATABASE_URL=" not in up.wait_for("everything is ready.*")[0]
        family = up.family()
        up.child("search").suspend()
        up.send(signal.SIGTERM)
        up.wait_for(r"waiting for search; at the most \d+ s more")
        assert up.end(signal.SIGTERM) == 143
        assert "search is killed" in up.output
        assert gone(family)


def test_a_service_that_cannot_start_ends_everything(servers: dict[str, str], distributed_database: str) -> None:
    """The reason is the last line, with the service's own code and exit code."""
    with service("api", **servers, CROCHET_DATABASE_URL=distributed_database) as first:
        first.wait_for("ready_for_work")
        done = crochet("up", "--no-flower", **servers, CROCHET_DATABASE_URL=distributed_database)
        refused(done, 2, "invalid_setting", "api does not start", "CROCHET_API_PORT", "Address already in use")
        assert first.end(signal.SIGTERM) == 0


# ── later ───────────────────────────────────────────────────────────────────────────────────────


def test_flower_forgets_workers_that_are_gone(up: Up, ended_worker: str) -> None:
    """A minute after its last heartbeat a worker is on no page any more, nor are a thousand of them; the others stay.

    The last test here: most of the minute passes during the others.
    """
    others = workers_in_flower(up).keys() - {ended_worker}
    eventually(lambda: all_workers_in_flower(up).keys() == others, SECONDS + serving.GONE_SECONDS, pause=0.5)
    assert len(others) == 3
