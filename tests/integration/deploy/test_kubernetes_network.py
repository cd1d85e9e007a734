"""Who can connect to whom in Kubernetes, computed from the policies: what is needed, and no more.

A connection from pod to pod is possible where a policy of the one lets it out and a policy of the other lets it in. Of
what is outside the namespace only our side counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support import manifests
from tests.support.manifests import OVERLAYS, of_kind, pods

pytestmark = pytest.mark.integration

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

OUTSIDE: dict[str, dict[str, str]] = {
    "ingress": {"crochet-tasks/ingress": "true"},
    **{
        name: {"kubernetes.io/metadata.name": name}
        for name in ("monitoring", "kube-system", "cnpg-system", "rabbitmq-system", "keda", "default")
    },
}
"""other namespaces, with their labels; `default` stands for any other one"""
DNS_LABELS = {"k8s-app": "kube-dns"}
OTHER = (22, 80, 3000, 443, 6443, 6379, 8000, 8080, 5555, 5671, 9464, 15692, 35672, 35682, 35683)
"""ports that are asked about, besides those of the pods"""
CLUSTERED = {4369, 25672, 35672, 35682}
WORLD = "any address"
MEASURED = {"api", "relay", "ingest", "search", "orthos"}

Edge = tuple[str, str, int]


class Place(NamedTuple):
    """Whom a policy can mean: a pod of ours, pods of a namespace, or an address anywhere (both None)."""

    name: str
    labels: Mapping[str, str] | None
    namespace: Mapping[str, str] | None


def places(overlay: str) -> list[Place]:
    ours = [Place(pod.name, pod.labels, None) for pod in pods(overlay).values()]
    labels = {"kube-system": DNS_LABELS}
    return [*ours, *(Place(name, labels.get(name, {}), of) for name, of in OUTSIDE.items()), Place(WORLD, None, None)]


# ── what policies allow ─────────────────────────────────────────────────────────────────────────


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def means(peer: Mapping[str, Any], place: Place) -> bool:
    assert peer.keys() <= {"podSelector", "namespaceSelector"}
    if place.labels is None:
        return False
    if "namespaceSelector" in peer:
        if place.namespace is None or not selects(peer["namespaceSelector"], place.namespace):
            return False
    elif place.namespace is not None:
        return False
    return selects(peer.get("podSelector", {}), place.labels)


def allows(rule: Mapping[str, Any], side: str, place: Place, port: int) -> bool:
    ports = rule.get("ports", [])
    if ports and not any(each["port"] <= port <= each.get("endPort", each["port"]) for each in ports):
        return False
    return side not in rule or any(means(peer, place) for peer in rule[side])


def lets(overlay: str, direction: str, pod: Place, other: Place, port: int) -> bool:
    """Whether the policies of a pod let a connection in or out; without a policy of this type they would all."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    assert pod.labels is not None
    of = [
        policy["spec"]
        for policy in of_kind(overlay, "NetworkPolicy").values()
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    rules = [rule for spec in of for rule in spec.get(direction.lower(), [])]
    return not of or any(allows(rule, side, other, port) for rule in rules)


def possible(overlay: str) -> Iterator[Edge]:
    everywhere = places(overlay)
    ports = {*OTHER, *CLUSTERED, 53, *(port for pod in pods(overlay).values() for port in pod.ports.values())}
    for source in everywhere:
        for target in everywhere:
            inside = source.name in pods(overlay), target.name in pods(overlay)
            for port in ports if any(inside) else ():
                out = not inside[0] or lets(overlay, "Egress", source, target, port)
                if out and (not inside[1] or lets(overlay, "Ingress", target, source, port)):
                    yield source.name, target.name, port


# ── what is needed ──────────────────────────────────────────────────────────────────────────────


def addresses(overlay: str) -> Iterator[tuple[str, str, int]]:
    """The pods, and the hosts and ports that their environment names. `migrate` publishes nothing: it asks by HTTP."""
    for pod in pods(overlay).values():
        for container in pod.ours:
            for name, value in manifests.environment(overlay, container).items():
                url = urlsplit(value)
                if name.endswith("_URL") and not (pod.name == "migrate" and name == "CROCHET_BROKER_URL"):
                    assert url.hostname is not None
                    assert url.port is not None
                    yield pod.name, url.hostname, url.port


def jump_host(overlay: str) -> set[Edge]:
    """Keys are accepted from any address, and lead where their command says."""
    services = manifests.services(overlay)
    (container,) = pods(overlay)["bastion"].containers
    found: set[Edge] = {(place, "bastion", 2222) for place in (WORLD, *OUTSIDE)}
    option, permitted = container["args"]
    assert option == "-o"
    for target in permitted.removeprefix("PermitOpen=").split():
        host, port = target.split(":")
        leads = [("monitoring", 3000)] if host == "grafana.monitoring" else services[host][int(port)]
        found |= {("bastion", name, at) for name, at in leads}
    return found


def needed(overlay: str) -> set[Edge]:
    services = manifests.services(overlay)
    found: set[Edge] = {(pod.name, "kube-system", 53) for pod in pods(overlay).values()}
    for pod, host, port in addresses(overlay):
        found |= {(pod, target, at) for target, at in services[host][port]}
    found |= {("monitoring", name, 9464) for name in MEASURED} | {("monitoring", "rabbitmq", 15692)}
    found |= {("ingress", "api", 8080)} | jump_host(overlay)
    return found | (OPERATED if overlay == "production" else set())


OPERATED: set[Edge] = {
    ("pooler", "postgres", 5432),
    *(("postgres", "postgres", port) for port in (5432, 8000)),
    *(("cnpg-system", "postgres", port) for port in (5432, 8000)),
    ("monitoring", "postgres", 9187),
    *(("rabbitmq", "rabbitmq", port) for port in CLUSTERED),
    ("rabbitmq-system", "rabbitmq", 15672),
    ("keda", "rabbitmq", 15672),
    # Kubernetes' API, and the object store: addresses that no policy can name.
    *((pod, place, port) for pod in ("postgres", "pooler") for place in (WORLD, *OUTSIDE) for port in (443, 6443)),
    *((pod, place, 443) for pod in ("backup", "restore") for place in (WORLD, *OUTSIDE)),
}


@each_overlay
def test_pods_can_reach_what_they_need_and_nothing_else(overlay: str) -> None:
    found = set(possible(overlay))
    assert needed(overlay) - found == set()
    assert found - needed(overlay) == set()


@each_overlay
def test_every_address_is_a_service_of_the_namespace(overlay: str) -> None:
    assert {host for _, host, _ in addresses(overlay)} <= manifests.services(overlay).keys()


@each_overlay
def test_without_a_policy_of_its_own_a_pod_reaches_nothing(overlay: str) -> None:
    stranger = Place("stranger", {"app": "stranger"}, None)
    for place in places(overlay):
        for port in (*OTHER, 53, 5432, 5672):
            out = lets(overlay, "Egress", stranger, place, port)
            assert out is (place.name == "kube-system" and port == 53)
            assert not lets(overlay, "Ingress", stranger, place, port)
