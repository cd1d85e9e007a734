"""Prometheus for tests: the real one, of Debian's package, and what is in deploy/observability for it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.paths import ROOT
from tests.support.server import ANSWER_SECONDS, HOST, Server, find_program

OBSERVABILITY = ROOT / "deploy" / "observability"
CONFIGURATION = OBSERVABILITY / "prometheus.yml"
RULES = OBSERVABILITY / "rules.yml"
DASHBOARDS = OBSERVABILITY / "grafana" / "dashboards"
PACKAGE = "prometheus"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """All rules that are shipped."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it; raises Missing where it is not installed."""
    program = find_program(PACKAGE, "usr/bin/promtool", "usr/local/bin/promtool")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def asked(query: str) -> str:
    """A dashboard's query as Grafana sends it."""
    return query.replace("$__rate_interval", "1m")


class Prometheus(Server):
    """Asks and judges what a configuration says, which must name its rule files by absolute paths."""

    def __init__(self, folder: Path, configuration: dict[str, Any]) -> None:
        super().__init__(folder)
        self._program = find_program(PACKAGE, "usr/bin/prometheus", "usr/local/bin/prometheus")
        self._configuration = self.folder / "prometheus.yml"
        self._configuration.write_text(yaml.safe_dump(configuration))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; raises AssertionError with what it says is wrong."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=ANSWER_SECONDS)
        assert answer.status_code == httpx.codes.OK, f"{path} {parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, query: str) -> list[dict[str, Any]]:
        """The series, each with `metric` (its labels) and `value`."""
        found = self.get("query", query=asked(query))
        assert found["resultType"] == "vector"
        return list(found["result"])

    def targets(self) -> dict[str, str]:
        """The health of each target by its address."""
        return {each["labels"]["instance"]: each["health"] for each in self.get("targets")["activeTargets"]}

    def alerts(self, state: str = "firing") -> list[dict[str, str]]:
        """The labels of the alerts in this state."""
        return [each["labels"] for each in self.get("alerts")["alerts"] if each["state"] == state]

    def _launch(self) -> subprocess.Popen[bytes]:
        arguments = {
            "config.file": self._configuration,
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": f"{HOST}:{self.port}",
            "log.level": "warn",
        }
        options = [f"--{name}={value}" for name, value in arguments.items()]
        return self._spawn(self._program, options, environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        return _is_success(f"{self.url}/-/ready")


class Alertmanager(Server):
    """Notifies by what a configuration says; Prometheus sends it alerts."""

    def __init__(self, folder: Path, configuration: dict[str, Any]) -> None:
        super().__init__(folder)
        self._program = find_program("prometheus-alertmanager", "usr/bin/prometheus-alertmanager")
        self._configuration = self.folder / "alertmanager.yml"
        self._configuration.write_text(yaml.safe_dump(configuration))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        options = [f"--config.file={self._configuration}", f"--storage.path={self.folder / 'data'}"]
        options += [f"--web.listen-address={HOST}:{self.port}", "--cluster.listen-address=", "--log.level=warn"]
        return self._spawn(self._program, options, environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        return _is_success(f"{self.url}/-/ready")


class Blackbox(Server):
    """Probes what Prometheus names, as the configuration that is shipped says."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        program = find_program("prometheus-blackbox-exporter", "usr/bin/prometheus-blackbox-exporter")
        options = [f"--config.file={OBSERVABILITY / 'blackbox.yml'}", f"--web.listen-address={HOST}:{self.port}"]
        return self._spawn(program, options, environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        return _is_success(f"{self.url}/-/healthy")


def _is_success(url: str) -> bool:
    try:
        return httpx.get(url, timeout=ANSWER_SECONDS).is_success
    except httpx.HTTPError:
        return False


IDENTIFIER = re.compile(r"(?<![\w.])[a-zA-Z_:][\w:]*")
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
MATCHERS = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")


def metrics_of(query: str) -> set[str]:
    """The metrics that a query names."""
    text = re.sub(r'"[^"]*"', '""', query)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    found = {match[0] for match in IDENTIFIER.finditer(text) if not re.match(r"\s*\(", text[match.end() :])}
    return found - KEYWORDS


def labels_of(query: str) -> dict[str, set[str]]:
    """The labels by which a query picks series, by the metric."""
    found: dict[str, set[str]] = {}
    for metric, inside in MATCHERS.findall(query):
        found.setdefault(metric, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', inside)))
    return found


def grouped_by(query: str) -> set[str]:
    """The labels by which a query adds up."""
    lists = re.findall(r"\bby\s*\(([^)]*)\)", query)
    return {label for inside in lists for label in re.findall(r"\w+", inside)}
