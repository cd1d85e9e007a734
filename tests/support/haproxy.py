"""HAProxy with the configuration of deploy/proxy, before APIs that listen on this machine."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.server import ANSWER_SECONDS, HOST, Server, find_program, take_port

CONFIGURATION = ROOT / "deploy" / "proxy" / "haproxy.cfg"


class HAProxy(Server):
    """The configuration that docker-compose.yml mounts: only addresses are others, and Docker's DNS is left out.

    `servers`: the ports of each kind, which are called after it: api1, api2, canary1.
    """

    def __init__(
        self, folder: Path, servers: Mapping[str, Sequence[int]], environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._program = find_program("haproxy", "usr/sbin/haproxy")
        self._servers = servers
        self._environment = {**(environment or {})}
        self._admin = take_port()
        self.console = take_port()
        """leads to the APIs with the console"""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def say(self, command: str) -> str:
        """What the runtime API answers, as deploy/scripts/rollout asks it."""
        with socket.create_connection((HOST, self._admin), ANSWER_SECONDS) as connection:
            connection.sendall(f"{command}\n".encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return answer.read().decode().strip()

    def drained(self, server: str) -> bool:
        """Whether a server that gets no more requests has answered all it had."""
        return self._stat(server, "scur") == "0"

    def is_up(self, server: str) -> bool:
        return self._stat(server, "status").startswith("UP")

    def requests(self, server: str) -> int:
        """How many it has got."""
        return int(self._stat(server, "stot"))

    def _stat(self, of: str, name: str) -> str:
        rows = list(csv.DictReader(self.say("show stat").removeprefix("# ").splitlines()))
        (row,) = (row for row in rows if f"{row['pxname']}/{row['svname']}" == of)
        return row[name]

    def _launch(self) -> subprocess.Popen[bytes]:
        (self.folder / "haproxy.cfg").write_text(self._configuration())
        return self._spawn(
            self._program,
            ["-db", "-f", str(self.folder / "haproxy.cfg")],
            environment={"LC_ALL": "C"} | self._environment,
        )

    def _configuration(self) -> str:
        given = CONFIGURATION.read_text()
        given = re.sub(r"^resolvers .*?\n\n", "", given, flags=re.M | re.S)
        given = given.replace(" resolvers docker init-addr none", "")
        given = given.replace("bind :8080", f"bind {HOST}:{self.port}")
        given = given.replace("bind :8081", f"bind {HOST}:{self.console}")
        given = re.sub(r"ipv4@127\.0\.0\.1:\d+", f"ipv4@{HOST}:{self._admin}", given)
        return re.sub(r"^    server-template (\w+) \d+ \S+(.*)$", self._own, given, flags=re.M)

    def _own(self, template: re.Match[str]) -> str:
        """The servers in place of a template."""
        ports = enumerate(self._servers.get(template[1], ()), 1)
        return "\n".join(f"    server {template[1]}{number} {HOST}:{port}{template[2]}" for number, port in ports)

    def _answers(self) -> bool:
        return "Uptime" in self.say("show info")
