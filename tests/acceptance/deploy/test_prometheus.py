"""A real Prometheus asks a running deployment, with the configuration, rules and dashboards that are shipped.

Every query of every dashboard is asked. All show something, but for those that are listed here by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.operate import actions
from tests.support import services, steps
from tests.support.cluster import Cluster, accept, cluster, corpus_of, until, until_closed
from tests.support.commands import CROCHET, RELAY, SEARCH, STAGES, STORE
from tests.support.faulty import faulty
from tests.support.prometheus import CONFIGURATION, DASHBOARDS, RULES, Prometheus, read
from tests.support.server import Missing, fail_or_skip, take_port

pytestmark = pytest.mark.acceptance

COMMANDS = {"api": ("api",), "relay": RELAY, "ingest": STAGES, "search": SEARCH, "orthos": STORE}
"""the containers of docker-compose.yml that are asked"""
POISON = "hemlock"
FAULTS = {"relay": ("quick",), "ingest": ("poison", POISON)}
WITHOUT_EXPORTER = {
    "levels: Budgets of 30 days: Answers from outside A",
    "levels: Budgets of 30 days: Certificates expire in A",
    "levels: Machines: Disks that are free A",
    "levels: Machines: Memory available A",
    "levels: Machines: Processors idle A",
}
"""queries that show nothing here: their exporters do not run. Of probes there is test_alerting.py."""
AFTER_FAULTS = {"pipeline: Queues and tasks: Messages C", "pipeline: Work: Errors of work B"}
"""queries that show nothing before work fails and a message is dead"""
BY_CHANCE = {
    "database: Database: Errors A",
    "levels: Machines: Redis failures A",
    "pipeline: Queues and tasks: Messages B",
    "pipeline: Queues and tasks: Transactions tried again within a task A",
    "pipeline: Work: Errors of work A",
}
"""queries that show nothing unless a server fails, or two transactions meet: they are asked, whatever comes"""
OF_THE_MACHINE = {
    "CrochetApiSlow",
    "CrochetBudgetBurns",
    "CrochetBudgetBurnsFast",
    "CrochetDatabasePoolExhausted",
    "CrochetDatabaseSlow",
    "CrochetDiskFilling",
}
"""alerts that say how fast or how full it is, which is not for a test to say"""


class Watched(NamedTuple):
    """A deployment, the Prometheus that asks it, and the process of the test on its database."""

    cluster: Cluster
    names: dict[str, str]
    """of the processes, by service"""
    prometheus: Prometheus
    process: Process
    corpus: Corpus
    vhost: str
    api: int
    """its port"""

    def firing(self) -> set[tuple[str, str]]:
        """Alerts, each with what it is about."""
        labels = [each for each in self.prometheus.alerts() if each["alertname"] not in OF_THE_MACHINE]
        about = ("queue", "kind", "compose_service")
        return {(each["alertname"], next((each[name] for name in about if name in each), "")) for each in labels}

    def counted(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of a metric by these labels."""
        series = self.prometheus.query(metric)
        return {tuple(each["metric"][label] for label in labels): float(each["value"][1]) for each in series}


@pytest.fixture(scope="module")
def watched(
    postgres: services.Postgres,
    distributed_template: str,
    rabbitmq: services.RabbitMQ,
    redis_server: services.Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """One deployment for all tests here, in their order."""
    for server in (postgres, rabbitmq, redis_server):
        server.start()
    folder, vhost = tmp_path_factory.mktemp("watched"), rabbitmq.new_vhost()
    ports = {service: take_port() for service in COMMANDS}
    environment = {
        "CROCHET_DATABASE_URL": postgres.new_database(distributed_template),
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": redis_server.url,
        "CROCHET_API_PORT": str(take_port()),
        "CROCHET_HEALTH_DIR": str(folder / "health"),
    }
    try:
        prometheus = Prometheus(folder / "prometheus", configuration(folder, ports, rabbitmq.metrics_url))
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program
    with cluster(folder, **environment) as made, made.process() as process:
        names = {
            service: made.start(*command, program=program(service), CROCHET_METRICS_PORT=str(ports[service]))
            for service, command in COMMANDS.items()
        }
        try:
            prometheus.start()
            until(lambda: all(map(made.ready, names.values())), made)
            yield Watched(made, names, prometheus, process, corpus_of(process, Limits()), vhost, made.settings.api_port)
        finally:
            prometheus.kill()


def program(service: str) -> tuple[str, ...]:
    return faulty(*FAULTS[service]) if service in FAULTS else CROCHET


def configuration(folder: Path, ports: dict[str, int], rabbitmq: str) -> dict[str, Any]:
    """The one that is shipped, with these targets, in a hurry, and with rules that do not wait."""
    shipped: dict[str, Any] = read(CONFIGURATION)
    jobs = {job["job_name"]: job for job in shipped["scrape_configs"]}
    (found,) = jobs["crochet"].pop("dns_sd_configs")
    assert sorted(found["names"]) == sorted(ports)
    jobs["crochet"]["static_configs"] = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__meta_dns_name": name}} for name, port in ports.items()
    ]
    jobs["rabbitmq"]["static_configs"] = [{"targets": [httpx.URL(rabbitmq).netloc.decode()]}]
    rules = read(RULES)
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [jobs["crochet"], jobs["rabbitmq"]],
    }


def queries() -> dict[str, str]:
    """All of them, by dashboard, row, panel and letter."""
    found: dict[str, str] = {}
    for path in sorted(DASHBOARDS.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text())["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            for target in panel.get("targets", []):
                name = f"{path.stem}: {row}: {panel['title']} {target['refId']}"
                assert name not in found, f"two panels of one row have this title: {name}"
                found[name] = target["expr"]
    return found


def test_dashboards_show_a_deployment_that_is_well_and_no_alert_fires(watched: Watched) -> None:
    """Every target is up, every query is answered and shows something, but for those that are listed."""
    prometheus, deployment = watched.prometheus, watched.cluster
    until(lambda: list(prometheus.targets().values()) == ["up"] * 6, deployment)
    for _ in range(3):
        httpx.get(f"http://127.0.0.1:{watched.api}/v1/corpora")
    accept(watched.process, watched.corpus, steps.TEXTS)
    until_closed(watched.process, watched.corpus, deployment)
    asked = queries()
    assert len(asked) > 80
    listed = WITHOUT_EXPORTER | AFTER_FAULTS | BY_CHANCE
    assert listed <= asked.keys(), "no dashboard has such a query any more: take it off the list"
    until_shown(watched, asked.keys() - listed)
    shown = {name for name in listed if prometheus.query(asked[name])}
    assert shown <= BY_CHANCE, "it shows something: take it off the list"
    until(lambda: watched.prometheus.query("crochet:work_open == 0"), deployment, pause=0.5)
    until(lambda: watched.firing() == set(), deployment, pause=0.5)


def test_faults_are_told_and_so_is_their_end(watched: Watched, rabbitmq: services.RabbitMQ) -> None:
    """No worker searches while work waits, a text is poison, and an unreadable message was dead-lettered."""
    deployment, process = watched.cluster, watched.process
    deployment.kill(watched.names["search"])
    publish(rabbitmq, watched.vhost, "search-dead", "unreadable")
    accept(process, watched.corpus, [MORE, f"some {POISON}"])
    expected = {
        ("CrochetServiceDown", "search"),
        ("CrochetQueueWithoutConsumer", "search"),
        ("CrochetDeadLetters", ""),
        ("CrochetWorkFailed", "ingest"),
    }
    until(lambda: watched.firing() >= expected, deployment, pause=0.5)
    waiting = 'max by (queue) (crochet_queue_messages_ready{queue="search"}) > 0'
    until(lambda: watched.prometheus.query(waiting), deployment, pause=0.5)

    deployment.start_again(watched.names["search"])
    ((letter,),) = steps.sql(process, "SELECT id FROM dead_letters")
    ((poisoned,),) = steps.sql(process, "SELECT id FROM texts WHERE state = 'failed'")
    actions.drop(process, [f"dead-{letter}", f"text-{poisoned}"])
    until_closed(process, watched.corpus, deployment)
    until(lambda: watched.firing() == set(), deployment, pause=0.5)
    assert watched.counted("crochet_work_failures_total", "kind", "code") == {("ingest", "internal"): 1}
    dead_letters = watched.counted("crochet_dead_letters_buried_total", "queue", "reason")
    assert dead_letters == {("ingest", "rejected"): 1, ("search", "unknown"): 1}
    until_shown(watched, AFTER_FAULTS)


def until_shown(watched: Watched, names: Iterable[str]) -> None:
    """Wait until the queries of these names show something; raises AssertionError with those that do not."""
    asked, missing = queries(), sorted(names)

    def all_there() -> bool:
        nonlocal missing
        missing = [name for name in missing if not watched.prometheus.query(asked[name])]
        return not missing

    try:
        until(all_there, watched.cluster, pause=0.5)
    except AssertionError:
        raise AssertionError(f"nothing to show for {missing}") from None


MORE = "s t, u v, s u, t v"


def publish(rabbitmq: services.RabbitMQ, vhost: str, queue: str, payload: str) -> None:
    message = {"properties": {}, "routing_key": queue, "payload": payload, "payload_encoding": "string"}
    sent = rabbitmq.api("POST", f"/exchanges/{vhost.rpartition('/')[2]}/amq.default/publish", message)
    assert sent == {"routed": True}
