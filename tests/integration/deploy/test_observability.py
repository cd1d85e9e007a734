"""deploy/observability: configurations, rules, dashboards and the runbook fit each other and what the program measures.

Prometheus' promtool judges what it can, Grafana's own models read the dashboards; what a collector, a Tempo, a Loki or
a Pyroscope would say is not known here: their files are checked for what their documents ask.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from crochet_tasks import cli
from crochet_tasks.telemetry import metrics, tracing  # noqa: F401 - metrics declares them
from crochet_tasks.telemetry.instruments import METRICS
from tests.support.paths import ROOT
from tests.support.prometheus import (
    CONFIGURATION,
    DASHBOARDS,
    OBSERVABILITY,
    RULES,
    asked,
    grouped_by,
    labels_of,
    metrics_of,
    promtool,
    read,
    rules,
)
from tests.support.server import Missing, fail_or_skip

pytestmark = pytest.mark.integration

SOURCES = OBSERVABILITY / "grafana/provisioning/datasources/datasources.yml"
RUNBOOK = ROOT / "docs" / "operations.md"
ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))
}
TARGET_LABELS = {"job", "instance", "compose_service"}
"""given by prometheus.yml"""
OTHERS = {
    "up",
    "probe_success",
    "probe_ssl_earliest_cert_expiry",
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_process_resident_memory_bytes",
    "rabbitmq_resident_memory_limit_bytes",
}
"""metrics of Prometheus, RabbitMQ, blackbox and node exporter. tests/acceptance/deploy/ sees that those of the first
three are there.
"""
OF_OTHERS = {"objective", "mode", "cpu", "fstype", "mountpoint"}
"""labels of theirs, and of what is recorded"""


def checked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    try:
        return promtool(*arguments)
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def queries() -> dict[str, list[str]]:
    """All queries, by where they stand."""
    found = {str(rule.get("alert") or rule["record"]): [str(rule["expr"])] for rule in rules()}
    return found | {where: [target["expr"] for target in panel["targets"]] for where, panel in panels()}


def declared() -> dict[str, set[str]]:
    """The series of all metrics of the program, with their labels."""
    found: dict[str, set[str]] = {}
    for each in METRICS:
        if each.kind == "histogram":
            found[f"{each.name}_bucket"] = {*each.labels, "le"}
            found |= {f"{each.name}_{part}": set(each.labels) for part in ("sum", "count")}
        else:
            found[each.name] = set(each.labels)
    return found


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────


def test_prometheus_takes_configuration_and_rules() -> None:
    """With every rule file that is named."""
    done = checked("check", "config", CONFIGURATION)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(CONFIGURATION)["rule_files"] == [RULES.name]


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    """On made-up series; every alert fires on some, and none on those of a deployment that is well."""
    files = sorted(OBSERVABILITY.glob("rules*_test.yml"))
    for file in files:
        done = checked("test", "rules", file)
        assert done.returncode == 0, done.stdout + done.stderr
    cases = [case for file in files for test in read(file)["tests"] for case in test["promql_expr_test"]]
    fired = [sample["labels"] for case in cases for sample in case.get("exp_samples", [])]
    names = {alert["alert"] for alert in ALERTS}
    assert set(re.findall(r'alertname="(\w+)"', " ".join(fired))) == names
    assert {"eval_time": "35m", "expr": "ALERTS"} in cases  # where all is well there is none


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_how_bad_what_and_where_to_read_on(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert re.fullmatch(r"Crochet([A-Z][a-z]+)+", name)
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+m", alert["for"])
    says = alert["annotations"]
    assert says.keys() == {"summary", "description", "runbook_url"}
    assert says["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    text = RUNBOOK.read_text()
    sections = dict(re.findall(r"^### (Crochet\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(alert["alert"] for alert in ALERTS)
    for name, section in sections.items():
        for part in ("**Means**", "**See**", "**Do**", "**Over**"):
            assert part in section, f"{name}: {part}"


def test_commands_and_alerts_of_the_runbook_are_real() -> None:
    """Every command of the program that stands in it is one that the program takes, and every name is an alert's."""
    text = RUNBOOK.read_text()
    assert set(re.findall(r"\b(Crochet\w+)", text)) == {alert["alert"] for alert in ALERTS}
    commands = {
        found.split("`")[0] for found in re.findall(r"`(?:docker compose exec [\w-]+ )?crochet (\w[^\n]*)", text)
    }
    assert len(commands) > 10
    for line in commands:
        words = shlex.split(line)
        command: Any = typer.main.get_command(cli.app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("crochet", words)


def test_metrics_and_labels_that_are_asked_for_exist() -> None:
    """In rules and in dashboards."""
    series = declared()
    known = {*series, *RECORDED, *OTHERS}
    every_label = set.union(*series.values()) | TARGET_LABELS | OF_OTHERS
    for where, group in queries().items():
        for query in group:
            used = metrics_of(query)
            assert used or query.startswith("vector("), where
            assert used <= known, where
            for metric, labels in labels_of(query).items():
                assert labels <= series.get(metric, every_label) | TARGET_LABELS, where
            given = set().union(*(series.get(metric, every_label) for metric in used)) | TARGET_LABELS
            assert grouped_by(query) <= given, where


def test_what_is_recorded_is_used() -> None:
    used = {metric for group in queries().values() for query in group for metric in metrics_of(query)}
    assert used >= RECORDED


@pytest.mark.parametrize(
    "query", ["sum by (job) (rate(a_b{c=\"x y\",d=~'z'}[5m])) / on (q) group_left (r) e:f and g == 5e1"]
)
def test_names_are_told_from_what_stands_around_them(query: str) -> None:
    """The tests above rest on it."""
    assert metrics_of(query) == {"a_b", "e:f", "g"}
    assert labels_of(query) == {"a_b": {"c", "d"}}
    assert grouped_by(query) == {"job"}


def test_prometheus_asks_where_services_answer() -> None:
    """Every container of ours that has metrics, at its configured port; RabbitMQ; and the observability services."""
    compose = read(ROOT / "docker-compose.yml")["services"]
    jobs = {job["job_name"]: job for job in read(CONFIGURATION)["scrape_configs"]}
    (ours,) = jobs["crochet"]["dns_sd_configs"]
    assert set(ours["names"]) == {
        name for name, service in compose.items() if service.get("command", [""])[0] in ("api", "relay", "worker")
    }
    (port,) = re.findall(r"^CROCHET_METRICS_PORT=(\d+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert str(ours["port"]) == port
    static = [job for job in jobs.values() if job.get("metrics_path") != "/probe"]
    asked_for = {config["targets"][0] for job in static for config in job.get("static_configs", [])}
    hosts = {target.partition(":")[0] for target in asked_for}
    profile = {name for name, service in compose.items() if "observability" in service.get("profiles", [])}
    assert hosts - {"127.0.0.1"} == profile - {"prometheus"} | {"rabbitmq"}


# ── dashboards ──────────────────────────────────────────────────────────────────────────────────


def test_dashboards_are_as_they_are_made() -> None:
    """They are changed in scripts/dashboards.py."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "dashboards.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_query_of_a_dashboard_parses(tmp_path: Path) -> None:
    """As far as promtool says so: each as a rule."""
    made = [query for _, panel in panels() for query in (target["expr"] for target in panel["targets"])]
    group = {
        "name": "all",
        "rules": [{"record": f"q{place}", "expr": asked(query)} for place, query in enumerate(made)],
    }
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [group]}))
    done = checked("check", "rules", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(made)} rules found" in done.stdout


def lost(ours: Any, theirs: Any, at: str = "") -> Iterator[str]:
    """What of a document is not, or differs, in another one, by its path."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs[key], f"{at}/{key}") if key in theirs else [f"{at}/{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{at}/{place}")
    elif ours != theirs:
        yield at


def as_grafana_reads(board: dict[str, Any]) -> Any:
    """What is left of a dashboard when Grafana's own models have read and written it: they drop what they do not
    know, in panels and queries by their kind.
    """
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_knows_all_that_a_dashboard_says(name: str) -> None:
    assert [*lost(BOARDS[name], as_grafana_reads(BOARDS[name]))] == []


def test_what_grafana_does_not_know_is_found() -> None:
    """Misspelt in the dashboard, a panel, where it lies, its options and its query."""
    board: dict[str, Any] = json.loads(json.dumps(BOARDS["api"]))
    panel = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    board["refres"] = "15s"
    panel["gridPos"]["width"] = 8
    panel["fieldConfig"]["defaults"] |= {"units": "s", "custom": {"fillOpacty": 20}}
    panel["targets"][0]["legend"] = "all"
    assert sorted(path.rpartition("/")[2] for path in lost(board, as_grafana_reads(board))) == [
        *("fillOpacty", "legend", "refres", "units", "width")
    ]


def test_dashboards_have_ids_of_their_own() -> None:
    boards = BOARDS.values()
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(BOARDS) == 5


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other_and_ask_a_source_that_is_there(name: str) -> None:
    """None over another, none beyond the edge; each query has a letter of its own."""
    sources = read(SOURCES)["datasources"]
    kinds = {source["uid"]: source["type"] for source in sources}
    assert len(kinds) == len(sources)
    found = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(letters) == len(set(letters))
        for source in [panel, *panel["targets"]] if panel["type"] != "row" else []:
            assert source["datasource"] == {"type": kinds["prometheus"], "uid": "prometheus"}
    assert any(panel["type"] != "row" for panel in found)


# ── what is mounted, and the collector ──────────────────────────────────────────────────────────


def test_dashboards_are_mounted_where_grafana_looks() -> None:
    (provider,) = read(OBSERVABILITY / "grafana/provisioning/dashboards/dashboards.yml")["providers"]
    mounts = read(ROOT / "docker-compose.yml")["services"]["grafana"]["volumes"]
    assert f"./deploy/observability/grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_the_collector_takes_what_services_send_and_hands_it_on() -> None:
    """Every part that is made is used and every part that is used is made; addresses are those of containers."""
    collector = read(OBSERVABILITY / "collector.yml")
    pipelines = collector["service"]["pipelines"]
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines.values() for name in pipeline[kind]} == collector[kind].keys()
    assert pipelines.keys() == {"traces", "logs", "metrics"}
    loki = read(OBSERVABILITY / "loki.yml")["server"]["http_listen_port"]
    assert collector["exporters"]["otlphttp/loki"]["endpoint"] == f"http://loki:{loki}/otlp"
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines.values())
    services = read(ROOT / "docker-compose.yml")["services"]
    tempo = read(OBSERVABILITY / "tempo.yml")["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    host, _, port = collector["exporters"]["otlp/tempo"]["endpoint"].partition(":")
    assert host in services
    assert tempo.endswith(f":{port}")
    (reader,) = collector["service"]["telemetry"]["metrics"]["readers"]
    own = reader["pull"]["exporter"]["prometheus"]["port"]
    assert f"collector:{own}" in CONFIGURATION.read_text()


GENERATOR = {
    "metrics_ingestion_time_range_slack": None,
    "processor": {"service_graphs": {"wait": None, "peer_attributes": None}},
    "storage": {"path": None, "remote_write": None},
}
"""the keys of Tempo's documentation that are used: it refuses a file that has another one"""


def keys_of(found: object) -> Any:
    return {key: keys_of(value) for key, value in found.items()} if isinstance(found, dict) else None


def seconds(duration: str) -> int:
    """As Go writes it."""
    parts = re.findall(r"(\d+)([hms])", duration)
    assert "".join(map("".join, parts)) == duration
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def test_tempo_writes_a_service_map_that_grafana_shows() -> None:
    """From spans that are as old as the collector makes them, to a Prometheus that takes what is written to it."""
    tempo = read(OBSERVABILITY / "tempo.yml")
    generator = tempo["metrics_generator"]
    assert keys_of(generator) == GENERATOR
    assert tempo["overrides"] == {"defaults": {"metrics_generator": {"processors": ["service-graphs"]}}}
    collector = read(OBSERVABILITY / "collector.yml")["processors"]
    kept_back = seconds(collector["tail_sampling"]["decision_wait"]) + seconds(collector["batch"]["timeout"])
    exported = 2 * tracing.SCHEDULE_SECONDS + tracing.EXPORT_SECONDS
    assert seconds(generator["metrics_ingestion_time_range_slack"]) > 2 * (kept_back + exported)
    compose = read(ROOT / "docker-compose.yml")["services"]
    (target,) = generator["storage"]["remote_write"]
    assert target["url"] == "http://prometheus:9090/api/v1/write"
    assert "--web.enable-remote-write-receiver" in compose["prometheus"]["command"]
    mounted = {mount.split(":")[1] for mount in compose["tempo"]["volumes"]}
    assert any(generator["storage"]["path"].startswith(f"{folder}/") for folder in mounted)
    sources = {source["uid"]: source for source in read(SOURCES)["datasources"]}
    map_of = sources["tempo"]["jsonData"]["serviceMap"]["datasourceUid"]
    assert (sources[map_of]["type"], sources[map_of]["url"]) == ("prometheus", "http://prometheus:9090")


def test_the_collector_keeps_what_failed_or_was_slow_and_scrapes_what_prometheus_does() -> None:
    """Of the rest it keeps a share; the same targets by the same labels."""
    collector = read(OBSERVABILITY / "collector.yml")
    policies = {policy["name"]: policy for policy in collector["processors"]["tail_sampling"]["policies"]}
    assert all(policy["type"] in policy for policy in policies.values())
    assert policies["failed"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["slow"]["ottl_condition"]["span"] == ["(end_time_unix_nano - start_time_unix_nano) >= 5000000000"]
    assert 0 < policies["others"]["probabilistic"]["sampling_percentage"] < 100
    scraped = {job["job_name"]: job for job in read(CONFIGURATION)["scrape_configs"]}
    (job,) = collector["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert {**scraped["crochet"], "scrape_interval": job["scrape_interval"]} == job
