"""Alerts reach people: a real Prometheus, blackbox exporter and Alertmanager, configured as it is shipped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.collectors import Collector
from tests.support.mail import Mailbox
from tests.support.prometheus import CONFIGURATION, OBSERVABILITY, RULES, Alertmanager, Blackbox, Prometheus, read
from tests.support.server import HOST, Missing, fail_or_skip, take_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


class Alerting(NamedTuple):
    prometheus: Prometheus
    blackbox: Blackbox
    hooks: Collector
    """gets what goes to the webhook and to Slack"""
    mailbox: Mailbox

    def posts(self, path: str) -> list[Any]:
        return [json.loads(post.body) for post in self.hooks.posts if post.path == path]


@pytest.fixture(scope="module")
def alerting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerting]:
    folder = tmp_path_factory.mktemp("alerting")
    with Collector() as hooks, Mailbox() as mailbox, ExitStack() as started:
        try:
            blackbox = Blackbox(folder / "blackbox")
            alertmanager = Alertmanager(folder / "alertmanager", notified(folder, hooks.url, mailbox.address))
            prometheus = Prometheus(folder / "prometheus", watched(folder, alertmanager, blackbox, hooks.url))
            for server in (blackbox, alertmanager, prometheus):
                server.start()
                started.callback(server.kill)
        except Missing as missing:
            fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program
        yield Alerting(prometheus, blackbox, hooks, mailbox)


def notified(folder: Path, hooks: str, mail: str) -> dict[str, Any]:
    """alertmanager.yml with these addresses, in a hurry; the mail server here knows neither passwords nor TLS."""
    shipped: dict[str, Any] = read(OBSERVABILITY / "alertmanager.yml")
    shipped["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (folder / "slack-url").write_text(f"{hooks}/slack")
    for receiver in shipped["receivers"]:
        for each in receiver["email_configs"]:
            each.pop("auth_username", None)
            each.pop("auth_password_file", None)
            each |= {"smarthost": mail, "require_tls": False}
        for each in receiver.get("webhook_configs", []):
            each["url"] = f"{hooks}/alerts"
        for each in receiver.get("slack_configs", []):
            each["api_url_file"] = str(folder / "slack-url")
    return shipped


def watched(folder: Path, alertmanager: Alertmanager, blackbox: Blackbox, refuses: str) -> dict[str, Any]:
    """prometheus.yml: asks from outside for what answers and for what does not, and for a Tempo that is not there."""
    shipped: dict[str, Any] = read(CONFIGURATION)
    jobs = {job["job_name"]: job for job in shipped["scrape_configs"]}
    jobs["outside"]["static_configs"] = [{"targets": [f"{blackbox.url}/-/healthy", refuses]}]
    jobs["outside"]["relabel_configs"][-1]["replacement"] = f"{HOST}:{blackbox.port}"
    jobs["tempo"]["static_configs"] = [{"targets": [f"{HOST}:{take_port()}"]}]
    rules = read(RULES)
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    (shipped["alerting"]["alertmanagers"][0]["static_configs"][0])["targets"] = [f"{HOST}:{alertmanager.port}"]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
        "alerting": shipped["alerting"],
        "scrape_configs": [jobs["outside"], jobs["tempo"]],
    }


def test_probes_say_what_answers_from_outside(alerting: Alerting) -> None:
    def answers() -> dict[str, str]:
        series = alerting.prometheus.query('probe_success{job="outside"}')
        return {each["metric"]["instance"]: each["value"][1] for each in series}

    eventually(lambda: answers() == {f"{alerting.blackbox.url}/-/healthy": "1", alerting.hooks.url: "0"})
    eventually(lambda: {each["alertname"] for each in alerting.prometheus.alerts()} >= {"CrochetUnreachable"})


def test_a_critical_alert_is_mailed_posted_and_in_the_chat(alerting: Alerting) -> None:
    """With what it is about, and where to read on."""
    about = f"{alerting.hooks.url} does not answer from outside"
    eventually(lambda: any(about in text for text in alerting.mailbox.texts()))
    eventually(lambda: any(about in post["attachments"][0]["text"] for post in alerting.posts("/slack")))

    def alerts() -> list[dict[str, Any]]:
        found = [alert for post in alerting.posts("/alerts") for alert in post["alerts"]]
        return [alert for alert in found if alert["labels"]["alertname"] == "CrochetUnreachable"]

    eventually(lambda: alerts() != [])
    (alert, *_) = alerts()
    assert (alert["status"], alert["labels"]["instance"]) == ("firing", alerting.hooks.url)
    assert alert["annotations"]["runbook_url"] == "docs/operations.md#crochetunreachable"


def test_a_warning_is_only_mailed(alerting: Alerting) -> None:
    eventually(lambda: any("CrochetTelemetryDown" in text for text in alerting.mailbox.texts()))
    assert "CrochetTelemetryDown" not in json.dumps([*alerting.posts("/alerts"), *alerting.posts("/slack")])
