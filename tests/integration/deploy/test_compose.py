"""docker-compose.yml, Dockerfile and .env.example: they fit each other, the settings and the command line.

No engine is needed. Where a `docker compose` is installed, it reads the file as well.
"""

from __future__ import annotations

import graphlib
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from crochet_tasks import cli, settings
from crochet_tasks.broker import queues
from crochet_tasks.settings import PREFIX, Settings
from crochet_tasks.settings.field_types import passwords
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

COMPOSE, DOCKERFILE, EXAMPLE = ROOT / "docker-compose.yml", ROOT / "Dockerfile", ROOT / ".env.example"

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
"""${NAME}, ${NAME:-default}, ${NAME:?what is wrong}"""
PINNED = re.compile(r"[a-z][\w./-]*:v?\d+(\.\d+)+(-\w+)*(@sha256:[0-9a-f]{64})?")
SECRETS = {
    "POSTGRES_PASSWORD": "b1e55ed",
    "RABBITMQ_PASSWORD": "c0ffee",
    "API_PASSWORD": "api-facade",
    "WORKER_PASSWORD": "worker-facade",
    "RELAY_PASSWORD": "relay-facade",
    "FLOWER_PASSWORD": "flower-facade",
    "BACKUP_PASSWORD": "backup-facade",
    "METRICS_PASSWORD": "metrics-facade",
    "CROCHET_FLOWER_AUTH": "user:decade",
    "CROCHET_JWT_SECRET": "dec0de" * 12,
}
PUBLISHED = {"bastion", "proxy"}
REACH_OUT = {"alertmanager", "blackbox"}
"""what is not published and still connects to outside"""
ONE_OF_A_KIND = {"backup", "flower", "migrate", "restore", "roles"}
"""of our services: the others scale"""
WITHOUT_PROBE = {"collector", "loki", "pyroscope", "tempo"}
"""whose images hold one program that cannot ask itself; Prometheus does, see test_observability.py"""

Service = dict[str, Any]


def filled_in() -> dict[str, str]:
    """.env.example with the secrets filled in."""
    return example() | SECRETS


def example() -> dict[str, str]:
    lines = (line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def interpolated(value: Any, variables: dict[str, str]) -> Any:
    """A value as compose reads it."""

    def of(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        found = variables.get(name, "")
        assert found or kind != "?", f"{name} {rest}"
        return found or (rest if kind == "-" else "")

    if isinstance(value, dict):
        return {key: interpolated(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [interpolated(part, variables) for part in value]
    return VARIABLE.sub(of, value) if isinstance(value, str) else value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


RAW: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
FILE: dict[str, Any] = interpolated(RAW, filled_in())
SERVICES: dict[str, Service] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("build") == "."}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
PROBED = LASTING.keys() - WITHOUT_PROBE
WATCHING = {name: service for name, service in SERVICES.items() if service.get("profiles") == ["observability"]}

every = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)
each_lasting = pytest.mark.parametrize("name", LASTING)
each_probed = pytest.mark.parametrize("name", sorted(PROBED))


def seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m)", duration)
    assert match is not None, duration
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """The settings that the program finds in a container."""

    def load(name: str) -> Settings:
        for variable in [*map(str.upper, Settings.model_fields), *settings.misspelt()]:
            monkeypatch.delenv(f"{PREFIX}{variable.removeprefix(PREFIX)}", raising=False)
        for variable, value in SERVICES[name]["environment"].items():
            monkeypatch.setenv(variable, value)
        return Settings.load()

    return load


# ── compose itself ──────────────────────────────────────────────────────────────────────────────


def compose_program() -> list[str]:
    """The installed compose, of version 2 or later; without one the calling test is skipped."""
    docker, alone = shutil.which("docker"), shutil.which("docker-compose")
    for program in ([docker, "compose"] if docker else [], [alone] if alone else []):
        if program:
            done = subprocess.run([*program, "version", "--short"], capture_output=True, text=True, check=False)
            if done.returncode == 0 and re.match(r"v?([2-9]|\d\d)\.", done.stdout):
                return program
    pytest.skip("no docker compose is installed: the file is only checked by the other tests")


def test_compose_accepts_the_file_and_refuses_it_without_secrets(tmp_path: Path) -> None:
    compose = [*compose_program(), "--file", str(COMPOSE), "--env-file"]
    env = tmp_path / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in filled_in().items()))
    good = subprocess.run([*compose, env, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = subprocess.run([*compose, EXAMPLE, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert "is missing in .env" in bad.stderr


# ── the command line and the queues ─────────────────────────────────────────────────────────────


@each_of_ours
def test_every_command_is_one_that_the_program_takes(name: str) -> None:
    """It exists, and so does every option; each value is accepted."""
    command, *arguments = SERVICES[name]["command"]
    commands: dict[str, Any] = getattr(typer.main.get_command(cli.app), "commands")  # noqa: B009 - a group, to Typer too
    assert command in commands
    commands[command].make_context(command, arguments)


@each_of_ours
def test_every_health_check_is_one_that_the_program_takes(name: str) -> None:
    _, program, *arguments = SERVICES[name].get("healthcheck", {"test": ["CMD", "none"]})["test"]
    if program == "crochet":
        command, *options = arguments
        commands: dict[str, Any] = getattr(typer.main.get_command(cli.app), "commands")  # noqa: B009 - as above
        commands[command].make_context(command, options)


def test_workers_consume_every_queue() -> None:
    commands = [service["command"] for service in WORKERS.values()]
    consumed = ",".join(command[command.index("--queues") + 1] for command in commands)
    assert sorted(consumed.split(",")) == sorted(queues.WORK)


@pytest.mark.parametrize("name", sorted(OURS.keys() - ONE_OF_A_KIND))
def test_services_scale(name: str) -> None:
    """Nothing that only one container can have: no name, no port, no volume."""
    assert not {"container_name", "hostname", "ports", "volumes"} & SERVICES[name].keys()


def test_the_search_has_a_worker_of_its_own() -> None:
    search = WORKERS["search"]
    assert search["command"] == ["worker", "--queues", "search,best"]
    assert int(search["deploy"]["replicas"]) >= 1


def test_searches_give_way_to_everything_else() -> None:
    """Where they and others want the same core; 1024 is Docker's default."""
    assert {name: service.get("cpu_shares", 1024) < 1024 for name, service in SERVICES.items()} == {
        name: name == "search" for name in SERVICES
    }


# ── variables ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", [COMPOSE, DOCKERFILE, EXAMPLE], ids=lambda file: file.name)
def test_every_setting_that_is_named_exists(file: Path) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", file.read_text())) <= known


def test_the_example_has_every_variable_of_the_file_and_no_other() -> None:
    used = {match[1] for value in strings(RAW) for match in VARIABLE.finditer(value)}
    assert used == example().keys()


@each_of_ours
def test_settings_accept_the_environment(name: str, settings_of: Callable[[str], Settings]) -> None:
    found = settings_of(name)
    assert settings.misspelt() == []
    assert found.environment == "production"
    needs_database, needs_broker = name != "flower", name not in ("migrate", "backup", "restore")
    assert (found.database_url is not None, found.broker_url is not None) == (needs_database, needs_broker)


@each_of_ours
def test_addresses_name_services(name: str, settings_of: Callable[[str], Settings]) -> None:
    """Each with its own port and login."""
    found = settings_of(name)
    kind = "worker" if name in WORKERS else name
    owner = kind in {"migrate", "restore", "roles"}
    user, password = ("crochet", "") if owner else (f"crochet_{kind}", f"{kind}-facade")
    logins = {
        found.database_url: f"postgresql://{user}:{password or 'b1e55ed'}@postgres:5432/crochet",
        found.broker_url: f"amqp://{user}:{password or 'c0ffee'}@rabbitmq:5672//",
        found.broker_api_url: f"http://{user}:{password or 'c0ffee'}@rabbitmq:15672/api/",
        found.redis_url: f"redis://{user}:{password}@redis:6379/0",
    }
    assert all(secret.get_secret_value() == address for secret, address in logins.items() if secret is not None)
    assert {"postgres", "rabbitmq", "redis"} <= SERVICES.keys()


def test_the_proxy_leads_to_the_apis(settings_of: Callable[[str], Settings]) -> None:
    """To as many as there are, and the API believes what it says of clients."""
    api, proxy = settings_of("api"), SERVICES["proxy"]
    configuration = (ROOT / "deploy/proxy/haproxy.cfg").read_text()
    assert (api.api_host, api.api_proxies) == ("0.0.0.0", 1)
    assert set(re.findall(r"server-template \w+ \d+ (\S+)", configuration)) == {
        f"{name}:{api.api_port}" for name in ("api", "api-canary")
    }
    bound, _ = re.findall(r"bind :(\d+)", configuration)  # the second is the console's: test_access.py
    assert proxy["ports"] == [f"127.0.0.1:8080:{bound}"]
    assert f"http://127.0.0.1:{bound}/" in proxy["healthcheck"]["test"][-1]
    assert int(SERVICES["api"]["deploy"]["replicas"]) == 2


def test_users_that_roles_makes_are_those_that_services_log_in_as(settings_of: Callable[[str], Settings]) -> None:
    made = passwords(settings_of("roles").role_passwords)
    assert made == {kind: f"{kind}-facade" for kind in ("api", "worker", "relay", "flower", "backup", "metrics")}
    of_redis = " ".join(SERVICES["redis"]["command"]).split(" --user ")[1:]
    assert of_redis[0] == "default on nopass resetchannels -@all +ping"
    assert [user.split()[:3] for user in of_redis[1:]] == [
        [f"crochet_{kind}", "on", f">{kind}-facade"] for kind in ("api", "worker", "relay", "flower")
    ]


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def test_no_secret_is_written_down() -> None:
    """Whatever is secret is asked for, and the example leaves it open."""
    asked = re.compile(r"\$\{(\w+):\?[^}]*\}")
    wanted = set()
    for name, service in RAW["services"].items():
        for variable, value in service.get("environment", {}).items():
            login = re.search(r"://[^/]*?:(.*)@", value)
            secret = value if re.search("PASS|AUTH|SECRET|TOKEN|KEY", variable) else login and login[1]
            if secret:
                assert re.fullmatch(r"(\w+=)?( \w+=)*", asked.sub("", secret)), f"{name}: {variable}"
                wanted |= {match[1] for match in asked.finditer(secret)}
    assert wanted == SECRETS.keys()
    assert [name for name, value in example().items() if value == "" and name in SECRETS] == list(SECRETS)


def test_the_file_with_the_secrets_stays_out_of_git_and_of_the_image() -> None:
    assert {".env", "!.env.example"} <= set((ROOT / ".gitignore").read_text().splitlines())
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert not [line for line in ignored if line.startswith("!") and "env" in line]


# ── containers ──────────────────────────────────────────────────────────────────────────────────


@every
def test_images_are_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


@each_of_ours
def test_our_image_has_the_version_of_the_project(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES[name]["image"] == f"crochet-tasks:{version}"


@each_lasting
def test_what_lasts_is_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


@each_probed
def test_what_lasts_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert 0 < seconds(check["timeout"]) < seconds(check["interval"]) <= 60
    assert 3 <= check["retries"] <= 5


@each_probed
def test_health_checks_in_python_compile(name: str) -> None:
    _, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    if program == "python":
        option, code = arguments
        assert option == "-c"
        compile(code.replace("$$", "$"), name, "exec")


@every
def test_nothing_but_what_people_look_at_is_published(name: str) -> None:
    """And this on this machine only. The others are in a network that has no way out, but for what probes."""
    service = SERVICES[name]
    assert not {"network_mode", "privileged", "container_name"} & service.keys()
    assert ("ports" in service) == (name in PUBLISHED)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["networks"] == (["inside", "outside"] if name in PUBLISHED | REACH_OUT else ["inside"])
    assert FILE["networks"]["inside"]["internal"] is True


def test_services_start_after_what_they_need() -> None:
    """Every condition can come true, and nothing waits for itself."""
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    list(graphlib.TopologicalSorter({name: list(needed) for name, needed in waits.items()}).static_order())
    for needed in waits.values():
        for name, wait in needed.items():
            lasting = name in LASTING
            assert wait == {"condition": "service_healthy" if lasting else "service_completed_successfully"}
    assert all({"roles", "postgres", "rabbitmq"} <= waits[name].keys() for name in ["api", "relay", *WORKERS])


@each_of_ours
def test_containers_are_killed_only_after_they_had_time_to_drain(
    name: str, settings_of: Callable[[str], Settings]
) -> None:
    assert seconds(SERVICES[name]["stop_grace_period"]) > settings_of(name).drain + 5


@every
def test_every_container_has_limits(name: str) -> None:
    """As many cores as the smallest machine has, unless .env says more."""
    service = SERVICES[name]
    assert float(service["cpus"]) == 1
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0


@each_of_ours
def test_our_containers_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_volumes_are_named_and_used() -> None:
    """What is mounted from the checkout is there, and cannot be written to, nor can what is mounted of the machine."""
    mounts = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {name for name, *_ in mounts if name[0] not in "./"} == FILE["volumes"].keys()
    assert [where for name, *where in mounts if name.startswith("/")] == [["/host", "ro,rslave"]]
    for name, *where in mounts:
        assert not name.startswith("./") or ((ROOT / name).exists() and where[-1] == "ro")


def test_what_looks_on_is_only_there_when_it_is_asked_for() -> None:
    """Nothing of the program waits for it, and it may do little."""
    assert WATCHING.keys() == {"alertmanager", "blackbox", "grafana", "machine", "prometheus"} | WITHOUT_PROBE
    for service in WATCHING.values():
        assert service["profiles"] == ["observability"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {name for service in SERVICES.values() for name in service.get("depends_on", {})} & WATCHING.keys()
