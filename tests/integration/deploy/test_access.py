"""The ways in, of docker-compose.yml: what is published, what only the jump host reaches, and docs/access.md."""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from crochet_tasks.settings import Settings
from tests.conftest import serve
from tests.integration.deploy.test_compose import OURS, PINNED, RAW, SERVICES, interpolated
from tests.support.haproxy import HAProxy
from tests.support.paths import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

LOCAL = yaml.safe_load((ROOT / "docker-compose.local.yml").read_text())["services"]
BASTION, KEYS = SERVICES["bastion"], SERVICES["bastion-keys"]
PROXY = (ROOT / "deploy/proxy/haproxy.cfg").read_text()
CONFIGURATION = (ROOT / "deploy/bastion/sshd_config").read_text()
TARGETS = dict(target.split(":") for target in BASTION["command"][1].removeprefix("PermitOpen=").split())
"""port by service"""


def test_the_jump_host_leads_to_the_admin_ports() -> None:
    """Which are in a network that it is in, and where something listens."""
    defaults = Settings.model_fields
    listens = {
        "flower": defaults["flower_port"].default,
        "proxy": re.findall(r"^frontend admin\n    bind :(\d+)", PROXY, re.MULTILINE)[0],
        "rabbitmq": 15672,
        "postgres": 5432,
        "grafana": 3000,
        "prometheus": 9090,
    }
    assert {name: int(port) for name, port in TARGETS.items()} == {name: int(port) for name, port in listens.items()}
    assert all("inside" in SERVICES[name]["networks"] for name in (*TARGETS, "bastion"))
    assert SERVICES["flower"]["environment"]["CROCHET_FLOWER_HOST"] == "0.0.0.0"  # in the container
    assert "http://127.0.0.1:5555/" in SERVICES["flower"]["healthcheck"]["test"][-1]


def test_admin_ports_are_published_only_by_the_file_for_development_and_on_loopback() -> None:
    """At the same numbers as inside."""
    assert LOCAL.keys() == TARGETS.keys()
    for name, service in LOCAL.items():
        (port,) = interpolated(service, {})["ports"]
        assert port == f"127.0.0.1:{TARGETS[name]}:{TARGETS[name]}"
        assert not [
            published for published in SERVICES[name].get("ports", []) if published.endswith(f":{TARGETS[name]}")
        ]
        assert "outside" in {*service.get("networks", []), *SERVICES[name]["networks"]}


def test_the_jump_host_is_there_when_it_is_asked_for_and_may_do_little() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service in (BASTION, KEYS):
        assert (service["profiles"], service["build"]) == (["bastion"], "deploy/bastion")
        assert service["image"] == f"crochet-bastion:{version}"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert BASTION["sysctls"] == {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0"}
    assert "./deploy/bastion/keys:/etc/ssh/keys:ro" in BASTION["volumes"]


def test_its_parts_agree_on_paths_and_ports() -> None:
    dockerfile = (ROOT / "deploy/bastion/Dockerfile").read_text()
    (port,) = re.findall(r"^Port (\d+)$", CONFIGURATION, re.M)
    assert BASTION["ports"] == [f"127.0.0.1:2222:{port}"]
    assert f"EXPOSE {port}" in dockerfile
    assert port in BASTION["healthcheck"]["test"]
    (keys,) = re.findall(r"^HostKey (\S+)/etc/ssh/ssh_host_ed25519_key$", CONFIGURATION, re.M)
    assert KEYS["entrypoint"] == ["ssh-keygen", "-A", "-f", keys]
    assert f"bastion:{keys}" in BASTION["volumes"]
    assert re.findall(r"^AuthorizedKeysFile (\S+)/authorized_keys$", CONFIGURATION, re.M) == ["/etc/ssh/keys"]
    (account,) = re.findall(r"^AllowUsers (\w+)$", CONFIGURATION, re.M)
    assert f"'{account}:x:10001:10001::/:/usr/bin/false'" in dockerfile
    assert "USER 10001:10001" in dockerfile
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.M)
    assert bases[-1] == "scratch"
    assert all(PINNED.fullmatch(base) for base in bases[:-1])


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers everything, as an API would."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("console", "refused"), [("", 403), ("open", 200)])
def test_the_console_is_on_the_admin_port_unless_it_is_opened(
    console: str, refused: int, api: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However its path is written; and what only looks like it is not refused."""
    make = functools.partial(HAProxy, servers={"api": [api]}, environment={"CONSOLE": console})
    for proxy in serve(make, tmp_path_factory):
        eventually(functools.partial(proxy.is_up, "apis/api1"))

        def status(port: int, path: str) -> int:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request("GET", path)
                return connection.getresponse().status

        ways = ("/console", "/console/keys?after=1", "/%63onsole", "//console", "http://host/console")
        assert {status(proxy.port, path) for path in ways} == {refused}
        assert {status(proxy.port, path) for path in ("/", "/corpora/console", "/v1/corpora?name=/console")} == {200}
        assert {status(proxy.console, path) for path in ways} == {200}


def test_keys_stay_out_of_git_and_of_the_image() -> None:
    assert (ROOT / "deploy/bastion/keys/.gitignore").read_text().splitlines()[-2:] == ["*", "!.gitignore"]
    ignored = (ROOT / "deploy/bastion/.dockerignore").read_text().splitlines()
    assert [line for line in ignored if not line.startswith("#")] == ["*", "!sshd_config"]


def test_the_document_names_every_target_and_every_variable() -> None:
    text = (ROOT / "docs/access.md").read_text()
    for name, port in TARGETS.items():
        assert f"{name}:{port}" in text
    used = set(
        re.findall(
            r"\$\{(\w+)", (ROOT / "docker-compose.local.yml").read_text() + str(RAW["services"]["bastion"]["ports"])
        )
    )
    used |= {"CONSOLE", "BASTION_KEYS", "METRICS_PASSWORD", "COMPOSE_FILE"}
    assert used == {name for name in used if f"`{name}" in text}


def test_each_service_of_ours_reads_the_login_of_its_own_kind_under_systemd() -> None:
    """As a user of its own, which systemd makes up; and there is a unit for every service of docker-compose.yml."""
    units: dict[str, Path] = {
        path.stem.removeprefix("crochet-").rstrip("@"): path for path in (ROOT / "deploy/systemd").glob("*.service")
    }
    assert units.keys() == OURS.keys() - {"backup", "restore", "roles"}
    kinds = dict.fromkeys(("ingest", "search", "orthos"), "worker") | {"migrate": "owner"}
    for name, path in units.items():
        lines = path.read_text().splitlines()
        assert "DynamicUser=yes" in lines
        assert not [line for line in lines if line.startswith("User=")]
        files = [line.removeprefix("EnvironmentFile=") for line in lines if line.startswith("EnvironmentFile=")]
        assert files == ["/etc/crochet/crochet.env", f"/etc/crochet/{kinds.get(name, name)}.env"]
