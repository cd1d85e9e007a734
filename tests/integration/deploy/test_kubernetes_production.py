"""The overlay `production`: two of everything on different nodes, and how many there may be."""

from __future__ import annotations

import pytest

from crochet_tasks.broker import queues
from tests.support import manifests
from tests.support.manifests import of_kind, pods

pytestmark = pytest.mark.integration

SERVICES = ("api", "flower", "ingest", "orthos", "relay", "search")


def fewest() -> dict[str, int]:
    found = {name: each["spec"].get("replicas", 0) for name, each in of_kind("production", "Deployment").items()}
    for scaler in of_kind("production", "HorizontalPodAutoscaler", "ScaledObject").values():
        name = scaler["spec"]["scaleTargetRef"]["name"]
        assert found[name] == 0, "a scaled Deployment says no number, or each `kubectl apply` would set it"
        found[name] = scaler["spec"].get("minReplicas") or scaler["spec"].get("minReplicaCount")
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_there_are_two_of_every_service_on_different_nodes(name: str) -> None:
    assert fewest()[name] >= 2
    spec = pods("production")[name].spec
    assert spec is not None
    nodes = spec["topologySpreadConstraints"][0]
    assert (nodes["topologyKey"], nodes["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert nodes["whenUnsatisfiable"] == ("ScheduleAnyway" if name == "search" else "DoNotSchedule")
    assert nodes["labelSelector"]["matchLabels"].items() <= pods("production")[name].labels.items()


@pytest.mark.parametrize("name", SERVICES)
def test_nodes_are_drained_one_pod_of_a_service_at_a_time(name: str) -> None:
    budget = of_kind("production", "PodDisruptionBudget")[name]["spec"]
    assert budget["maxUnavailable"] == 1
    selected = [
        pod.name
        for pod in pods("production").values()
        if budget["selector"]["matchLabels"].items() <= pod.labels.items()
    ]
    assert selected == [name]


def test_as_many_searches_are_published_as_pods_may_run() -> None:
    """Or the queue would never be long enough to scale so far."""
    spec = of_kind("production", "ScaledObject")["search"]["spec"]
    (container,) = pods("production")["search"].ours
    found = manifests.environment("production", container)
    assert found.get("CROCHET_CONCURRENCY", "1") == "1"
    for trigger in spec["triggers"]:
        assert trigger["type"] == "rabbitmq"
        about = trigger["metadata"]
        assert (about["protocol"], about["mode"], about["vhostName"]) == ("http", "QueueLength", "/")
        assert about["queueName"] in queues.WORK
        assert int(about["value"]) * spec["maxReplicaCount"] <= int(found["CROCHET_PUBLISHED_LIMIT"])
    consumed = container["args"][2].split(",")
    assert sorted(trigger["metadata"]["queueName"] for trigger in spec["triggers"]) == sorted(consumed)


def test_keda_asks_where_rabbitmq_answers_as_the_user_for_numbers() -> None:
    scaler = of_kind("production", "ScaledObject")["search"]["spec"]
    hosts = {trigger["metadata"]["host"] for trigger in scaler["triggers"]}
    assert hosts == {"http://rabbitmq.crochet.svc:15672/"}
    assert 15672 in manifests.services("production")["rabbitmq"]
    (login,) = of_kind("production", "TriggerAuthentication").values()
    assert {trigger["authenticationRef"]["name"] for trigger in scaler["triggers"]} == {login["metadata"]["name"]}
    parts = {each["parameter"]: (each["name"], each["key"]) for each in login["spec"]["secretTargetRef"]}
    assert parts == {"username": ("crochet-metrics", "username"), "password": ("crochet-metrics", "password")}


def test_postgres_is_three_and_one_more_has_every_commit() -> None:
    spec = of_kind("production", "Cluster")["postgres"]["spec"]
    assert spec["instances"] == 3
    assert spec["postgresql"]["synchronous"] == {"method": "any", "number": 1}
    assert spec["affinity"] == {"topologyKey": "kubernetes.io/hostname", "podAntiAffinityType": "required"}
    initdb = spec["bootstrap"]["initdb"]
    assert (initdb["database"], initdb["owner"], initdb["secret"]["name"]) == ("crochet", "crochet", "postgres-owner")
    assert (initdb["encoding"], initdb["localeCollate"], initdb["localeCType"]) == ("UTF8", "C", "C")


def test_postgres_log_and_base_backups_go_to_the_archive() -> None:
    spec = of_kind("production", "Cluster")["postgres"]["spec"]
    (archiver,) = spec["plugins"]
    assert (archiver["name"], archiver["isWALArchiver"]) == ("barman-cloud.cloudnative-pg.io", True)
    store = of_kind("production", "ObjectStore")[archiver["parameters"]["barmanObjectName"]]["spec"]
    place = manifests.environment("production", pods("production")["backup"].ours[0])["PLACE"]
    bucket = store["configuration"]["destinationPath"].rpartition("/")[0]
    assert place.startswith(f"{bucket}/")
    assert place != store["configuration"]["destinationPath"]
    daily = of_kind("production", "ScheduledBackup")["daily"]["spec"]
    assert (daily["method"], daily["pluginConfiguration"]["name"]) == ("plugin", archiver["name"])
    assert daily["cluster"]["name"] == "postgres"
    assert len(daily["schedule"].split()) == 6


def test_the_pooler_has_fewer_connections_than_postgres_takes() -> None:
    """Three users come through it: api, worker, relay."""
    pooler = of_kind("production", "Pooler")["pooler"]["spec"]
    assert (pooler["cluster"]["name"], pooler["type"], pooler["instances"]) == ("postgres", "rw", 2)
    assert pooler["pgbouncer"]["poolMode"] == "transaction"
    most = of_kind("production", "Cluster")["postgres"]["spec"]["postgresql"]["parameters"]["max_connections"]
    pool = int(pooler["pgbouncer"]["parameters"]["default_pool_size"])
    assert 3 * pool * pooler["instances"] <= int(most) - 30


def test_rabbitmq_is_three_and_may_lose_one() -> None:
    spec = of_kind("production", "RabbitmqCluster")["rabbitmq"]["spec"]
    assert spec["replicas"] == 3
    lines = dict(line.split(" = ") for line in spec["rabbitmq"]["additionalConfig"].splitlines())
    assert lines["cluster_partition_handling"] == "pause_minority"
    assert lines["quorum_queue.continuous_membership_reconciliation.target_group_size"] == "3"
    (rule,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert of_kind("production", "PodDisruptionBudget")["rabbitmq"]["spec"]["maxUnavailable"] == 1
