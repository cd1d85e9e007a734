"""deploy/kubernetes: the manifests fit Kubernetes' schemas, the program, its settings and each other.

No cluster is needed, and none was asked: kustomize renders the overlays, and kubernetes-validate compares them with the
schemas of two versions. It has none for the custom resources of operators, whose fields are compared with values here.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from crochet_tasks import cli, settings
from crochet_tasks.broker import permissions, queues
from crochet_tasks.db import privileges
from crochet_tasks.settings import PREFIX, Settings
from crochet_tasks.settings.field_types import passwords
from tests.support import manifests
from tests.support.manifests import OVERLAYS, Manifest, Pod, of_kind, pods, references
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

VERSIONS = ("1.31", "1.37")
SERVICES = {"api", "relay", "ingest", "search", "orthos", "flower"}
WORKERS = {"ingest", "search", "orthos"}
JOBS = {"migrate", "backup", "verify", "restore"}
CUSTOM = {
    *(("postgresql.cnpg.io/v1", kind) for kind in ("Cluster", "Pooler", "ScheduledBackup")),
    ("barmancloud.cnpg.io/v1", "ObjectStore"),
    ("rabbitmq.com/v1beta1", "RabbitmqCluster"),
    *(("keda.sh/v1alpha1", kind) for kind in ("ScaledObject", "TriggerAuthentication")),
}
COMPOSE: Manifest = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
each_pod = pytest.mark.parametrize(
    ("overlay", "pod"),
    [pytest.param(o, pod, id=f"{o}-{pod.name}") for o in OVERLAYS for pod in pods(o).values() if pod.spec],
)
each_of_ours = pytest.mark.parametrize(
    ("overlay", "pod", "container"),
    [
        pytest.param(o, pod, each, id=f"{o}-{pod.name}-{each['name']}")
        for o in OVERLAYS
        for pod in pods(o).values()
        for each in pod.ours
    ],
)


@functools.cache
def commands() -> dict[str, Any]:
    found: dict[str, Any] = getattr(typer.main.get_command(cli.app), "commands")  # noqa: B009 - a group, to Typer too
    return found


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Manifest], Settings]:
    """The settings that the program finds in a container."""

    def load(overlay: str, container: Manifest) -> Settings:
        for variable in [*map(str.upper, Settings.model_fields), *settings.misspelt()]:
            monkeypatch.delenv(f"{PREFIX}{variable.removeprefix(PREFIX)}", raising=False)
        for variable, value in manifests.environment(overlay, container).items():
            assert "$(" not in value, f"{variable} refers to what does not stand before it: {value}"
            if variable.startswith(PREFIX):
                monkeypatch.setenv(variable, value)
        return Settings.load()

    return load


# ── Kubernetes' schemas ─────────────────────────────────────────────────────────────────────────


@each_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(overlay: str, version: str) -> None:
    custom = {(each["apiVersion"], each["kind"]) for each in manifests.rendered(overlay)} & CUSTOM
    assert custom == (CUSTOM if overlay == "production" else set())
    for manifest in manifests.rendered(overlay):
        if (manifest["apiVersion"], manifest["kind"]) not in custom:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_does_not_exist_is_noticed() -> None:
    manifest = of_kind("production", "Deployment")["api"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "spec": {**manifest["spec"], "replica": 2}}, "1.37", strict=True)


# ── commands, probes and ports ──────────────────────────────────────────────────────────────────


@each_overlay
def test_there_are_all_services_and_jobs(overlay: str) -> None:
    assert of_kind(overlay, "Deployment").keys() >= SERVICES
    assert of_kind(overlay, "Job", "CronJob").keys() == JOBS
    assert all(pods(overlay)[name].labels["app.kubernetes.io/name"] == name for name in SERVICES | JOBS)


@each_of_ours
def test_every_command_is_one_that_the_program_takes(overlay: str, pod: Pod, container: Manifest) -> None:
    command, *arguments = manifests.arguments(overlay, container)
    commands()[command].make_context(command, arguments)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "exec" in container.get(probe, {}):
            program, command, *options = container[probe]["exec"]["command"]
            assert program == "crochet"
            commands()[command].make_context(command, options)


@each_overlay
def test_a_backup_is_restored_from_where_it_is_written_and_never_by_itself(overlay: str) -> None:
    crons = of_kind(overlay, "CronJob")
    assert {name for name, each in crons.items() if each["spec"].get("suspend")} == {"restore"}
    tries = {name: 1 + each["spec"]["jobTemplate"]["spec"]["backoffLimit"] for name, each in crons.items()}
    assert tries == {"backup": 3, "verify": 3, "restore": 1}
    backup, restore = ((pods(overlay)[name], pods(overlay)[name].ours[0]) for name in ("backup", "restore"))
    assert manifests.arguments(overlay, restore[1])[1] == manifests.arguments(overlay, backup[1])[1]
    for part in ("volumeMounts", "resources"):
        assert restore[1][part] == backup[1][part]
    assert restore[0].spec is not None
    assert backup[0].spec is not None
    assert restore[0].spec["volumes"] == backup[0].spec["volumes"]
    logins = [{(n, k) for n, k in references(each) if n == "object-store"} for _, each in (backup, restore)]
    assert logins[0] == logins[1]


@each_overlay
def test_workers_consume_every_queue(overlay: str) -> None:
    consumed = []
    for name in WORKERS:
        (container,) = pods(overlay)[name].ours
        command, option, names = container["args"]
        assert (command, option) == ("worker", "--queues")
        consumed += names.split(",")
    assert sorted(consumed) == sorted(queues.WORK)


@each_overlay
@pytest.mark.parametrize("name", sorted(SERVICES))
def test_probes_ask_the_right_thing(overlay: str, name: str) -> None:
    """Workers and the relay say whether they make progress; the API is not started again because a server is away."""
    (container,) = pods(overlay)[name].ours
    probes = [container[f"{which}Probe"] for which in ("startup", "liveness", "readiness")]
    if name == "api":
        expected = [{"path": f"/health/{of}", "port": "http"} for of in ("startup", "live", "ready")]
        assert [probe["httpGet"] for probe in probes] == expected
    elif name == "flower":
        assert [probe["httpGet"] for probe in probes] == [{"path": "/healthcheck", "port": "http"}] * 3
    else:
        assert [probe["exec"] for probe in probes] == [{"command": ["crochet", "health"]}] * 3
    for probe in probes:
        assert 0 < probe["timeoutSeconds"] <= 15


@each_pod
def test_probes_and_services_name_ports_that_there_are(overlay: str, pod: Pod) -> None:
    for container in pod.containers:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe, {}).get("httpGet") or container.get(probe, {}).get("tcpSocket")
            assert asked is None or asked["port"] in pod.ports
    assert all(leads for ports in manifests.services(overlay).values() for leads in ports.values())


@each_overlay
def test_the_program_listens_on_its_ports(overlay: str, settings_of: Callable[[str, Manifest], Settings]) -> None:
    for name in SERVICES:
        pod = pods(overlay)[name]
        found = settings_of(overlay, pod.ours[0])
        listens = {"api": {"http": found.api_port}, "flower": {"http": found.flower_port}}.get(name, {})
        assert pod.ports == listens | ({} if name == "flower" else {"metrics": found.metrics_port})
        assert (found.api_host, found.flower_host, found.metrics_host) == ("0.0.0.0",) * 3


def test_the_ingress_leads_to_the_api_which_believes_one_proxy(
    settings_of: Callable[[str, Manifest], Settings],
) -> None:
    (rule,) = of_kind("production", "Ingress")["api"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"] == {"service": {"name": "api", "port": {"name": "http"}}}
    assert of_kind("production", "Service")["api"]["spec"]["ports"][0]["name"] == "http"
    assert settings_of("production", pods("production")["api"].ours[0]).api_proxies == 1


# ── settings, users and secrets ─────────────────────────────────────────────────────────────────


@each_of_ours
def test_settings_accept_the_environment(
    overlay: str, pod: Pod, container: Manifest, settings_of: Callable[[str, Manifest], Settings]
) -> None:
    """Each has its own login, and what it needs and no more."""
    found = settings_of(overlay, container)
    assert settings.misspelt() == []
    assert found.environment == "production"
    kind = "worker" if pod.name in WORKERS else "backup" if pod.name == "verify" else pod.name
    pooled = overlay == "production" and pod.name in SERVICES
    at = f"{'pooler' if pooled else 'postgres-rw'}:5432/crochet{'?sslmode=require' * (overlay == 'production')}"
    made = manifests.secrets(overlay)
    owner, admin = made["postgres-owner"], made["rabbitmq-default-user"]
    login, admins = f"crochet_{kind}:{made.get(f'crochet-{kind}', {}).get('password')}", ":".join(admin.values())
    expected = {
        "database_url": f"postgresql://{login}@{at}",
        "broker_url": f"amqp://{login}@rabbitmq:5672//",
        "broker_api_url": f"http://{login}@rabbitmq:15672/api/",
        "redis_url": f"redis://{login}@redis:6379/0",
    }
    if pod.name in ("migrate", "restore"):
        expected = {
            "database_url": f"postgresql://{':'.join(owner.values())}@{at}",
            "broker_url": f"amqp://{admins}@rabbitmq:5672//",
            "broker_api_url": f"http://{admins}@rabbitmq:15672/api/",
        }
    needed = {
        "flower": {"broker_url", "broker_api_url", "redis_url"},
        "roles": {"broker_url", "broker_api_url"} | ({"database_url"} if overlay == "single-node" else set()),
        "migrate": {"database_url"},
        "backup": {"database_url"},
        "restore": {"database_url"},
    }.get(kind if container["name"] != "roles" else "roles", {"database_url", "broker_url", "redis_url"})
    addresses = {name: getattr(found, name) for name in ("database_url", "broker_url", "broker_api_url", "redis_url")}
    assert {name: value.get_secret_value() for name, value in addresses.items() if value is not None} == {
        name: value for name, value in expected.items() if name in needed
    }


@each_overlay
def test_users_that_are_made_are_those_that_services_log_in_as(
    overlay: str, settings_of: Callable[[str, Manifest], Settings]
) -> None:
    (_, roles) = pods(overlay)["migrate"].ours
    made = passwords(settings_of(overlay, roles).role_passwords)
    assert made == {kind: manifests.secrets(overlay)[f"crochet-{kind}"]["password"] for kind in made}
    assert made.keys() == {*privileges.KINDS, *permissions.RIGHTS}
    assert permissions.RIGHTS["metrics"].tags == "monitoring"  # KEDA's


def test_roles_of_the_cluster_are_there_before_the_migration_grants() -> None:
    spec = of_kind("production", "Cluster")["postgres"]["spec"]
    kinds = [kind for kind in privileges.KINDS if kind != "metrics"]
    assert spec["bootstrap"]["initdb"]["postInitSQL"] == [f"CREATE ROLE crochet_{kind} LOGIN" for kind in kinds]
    for kind, role in zip(kinds, spec["managed"]["roles"], strict=True):
        assert (role["name"], role["login"]) == (f"crochet_{kind}", True)
        assert role["passwordSecret"] == {"name": f"crochet-{kind}"}
        assert role.get("inRoles", []) == (["pg_read_all_stats"] if kind == "relay" else [])
    assert {"CREATEROLE", "SUPERUSER"}.isdisjoint(str(spec).upper().split())


@each_overlay
def test_secrets_are_referred_to_and_all_of_them_are_made(overlay: str) -> None:
    made = manifests.secrets(overlay)
    keys = {(name, key) for name, data in made.items() for key in data}
    written = str(manifests.rendered(overlay))
    used = {(name, key) for key, name in re.findall(r"'key': '([\w-]+)', 'name': '([\w-]+)'", written)}
    assert {pair for pod in pods(overlay).values() for each in pod.containers for pair in references(each)} <= used
    assert used <= keys
    assert {name for name, _ in keys} == {name for name, _ in used}
    assert not of_kind(overlay, "Secret")
    assert not re.search(r"://[^/$@']+:[^$@']+@", written)


@each_overlay
def test_passwords_are_random_and_need_no_quoting_in_an_address(overlay: str) -> None:
    passwords = [data["password"] for data in manifests.secrets(overlay).values() if "password" in data]
    assert len({*passwords}) == len(passwords) >= 7
    assert all(re.fullmatch(r"[\w.~-]{8,}", password) for password in passwords)


@each_overlay
def test_redis_has_the_users_of_compose(overlay: str) -> None:
    composed = [re.sub(r"\$\{(\w+?)(:\?[^}]*)?\}", r"$(\1)", word) for word in COMPOSE["redis"]["command"]]
    (redis,) = pods(overlay)["redis"].containers
    assert redis["args"] == composed
    assert "$(" not in "".join(manifests.arguments(overlay, redis))


# ── stopping ────────────────────────────────────────────────────────────────────────────────────


@each_overlay
@pytest.mark.parametrize("name", sorted(SERVICES))
def test_pods_are_killed_only_after_they_had_time_to_drain(
    overlay: str, name: str, settings_of: Callable[[str, Manifest], Settings]
) -> None:
    """Every task within the drain, and that with what precedes it within the grace period."""
    spec = pods(overlay)[name].spec
    assert spec is not None
    (container,) = spec["containers"]
    found = settings_of(overlay, container)
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert found.task_seconds <= found.drain
    assert found.task_seconds + 10 <= spec["terminationGracePeriodSeconds"]  # celeryconfig.task_time_limit
    assert before + found.drain + 5 <= spec["terminationGracePeriodSeconds"] <= before + found.drain + 15
    assert (before > 0) == (name == "api")


# ── pods may do little ──────────────────────────────────────────────────────────────────────────


@each_pod
def test_pods_are_restricted(overlay: str, pod: Pod) -> None:
    spec = pod.spec
    assert spec is not None
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & spec.keys()
    of_pod = spec["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert of_pod["runAsUser"] == (10001 if pod.ours or pod.name == "bastion" else 999)
    for container in pod.containers:
        may = container["securityContext"]
        assert (may["allowPrivilegeEscalation"], may["capabilities"]) == (False, {"drop": ["ALL"]})
        assert may.get("readOnlyRootFilesystem", False) is (pod.name != "rabbitmq")
    assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume]


@each_pod
def test_every_container_has_requests_and_limits_and_a_pinned_image(overlay: str, pod: Pod) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in pod.containers:
        asked = container["resources"]
        assert asked["requests"].keys() == asked["limits"].keys() == {"cpu", "memory"}
        name, _, tag = container["image"].rpartition(":")
        theirs = {"redis", "postgres", "rabbitmq"} & {name}
        expected = COMPOSE[name]["image"] if theirs else f"{name}:{version}"
        assert container["image"] == expected, tag


@each_pod
def test_mounts_are_volumes_that_there_are(overlay: str, pod: Pod) -> None:
    spec = pod.spec
    assert spec is not None
    claimed = [
        claim["metadata"]["name"]
        for each in of_kind(overlay, "StatefulSet").values()
        for claim in each["spec"].get("volumeClaimTemplates", [])
        if each["metadata"]["name"] == pod.name
    ]
    volumes = [*(volume["name"] for volume in spec.get("volumes", [])), *claimed]
    mounts = {mount["name"] for each in pod.containers for mount in each.get("volumeMounts", [])}
    assert mounts == set(volumes)
    assert len(volumes) == len(set(volumes))
    for volume in spec.get("volumes", []):
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or claim["claimName"] in of_kind(overlay, "PersistentVolumeClaim")


def test_the_document_names_what_there_is() -> None:
    """Objects of the overlays, files of the repository, and commands of the program."""
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    named = {
        *re.findall(r"\b(deployment|statefulset|cronjob|service|scaledobject)/([a-z]+)", document),
        *(("cronjob", name) for name in re.findall(r"\bjob/([a-z]+)-\d", document)),
        *(("job", name) for name in re.findall(r"\bjob/([a-z]+)\b(?!-)", document)),
    }
    there = {
        overlay: {(each["kind"].lower(), each["metadata"]["name"]) for each in manifests.rendered(overlay)}
        for overlay in OVERLAYS
    }
    assert len(named) >= 8
    assert named - there["production"] == {("statefulset", "postgres")}
    assert named - there["single-node"] == {("scaledobject", "search")}
    assert all((ROOT / path).exists() for path in re.findall(r"(?<![\w/])deploy/[\w./-]+\w", document))
    for line in re.findall(r" -- crochet (.+)$", document, re.MULTILINE):
        group, name, *arguments = line.split()
        commands()[group].commands[name].make_context(name, arguments)


def test_all_services_that_use_the_database_are_stopped_for_a_restore() -> None:
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    users = SERVICES - {"flower"}
    stopped = re.findall(r"scale --replicas=0 (.+)", document)
    waited = re.findall(r"wait --for=delete .*app.kubernetes.io/name in \((.+)\)", document)
    assert len(stopped) == len(waited) == len(OVERLAYS)
    assert all(set(line.replace("deployment/", "").split()) == users for line in stopped)
    assert all(set(line.split(", ")) == users for line in waited)
    for overlay in OVERLAYS:
        using = {
            pod.name
            for pod in pods(overlay).values()
            if any("CROCHET_DATABASE_URL" in manifests.environment(overlay, each) for each in pod.ours)
        }
        assert using - JOBS == users
    (node,) = re.findall(r"scale --replicas=1 (.+)", document)
    assert set(node.replace("deployment/", "").split()) == users
    (production,) = re.findall(r"scale --replicas=2 (.+)", document)
    counted = {name for name, each in of_kind("production", "Deployment").items() if "replicas" in each["spec"]}
    assert set(production.replace("deployment/", "").split()) == users - counted


@each_overlay
def test_the_namespace_enforces_it(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    inside = {each["metadata"].get("namespace") for each in manifests.rendered(overlay) if each is not namespace}
    assert inside == {namespace["metadata"]["name"]}
