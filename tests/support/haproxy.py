"""HAProxy with the configuration of deploy/proxy, before APIs that listen on this machine."""

from __future__ import annotations

import csv
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.server import ANSWER_SECONDS, HOST, Server, find_program, take_port

SOURCE = ROOT / "deploy" / "proxy"
INSIDE = "/usr/local/etc/haproxy"
"""where its files are in the container"""


class HAProxy(Server):
    """The configuration that docker-compose.yml mounts: only addresses are others, and Docker's DNS is left out.

    `backends`: the ports of each backend's servers, which are called after it: apis1, apis2.
    """

    def __init__(
        self, folder: Path, backends: Mapping[str, Sequence[int]], environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._program = find_program("haproxy", "usr/sbin/haproxy")
        self._backends = backends
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

    def requests(self, backend: str) -> int:
        """How many a backend has got."""
        return int(self._stat(f"{backend}/BACKEND", "stot"))

    def _stat(self, of: str, name: str) -> str:
        rows = list(csv.DictReader(self.say("show stat").removeprefix("# ").splitlines()))
        (row,) = (row for row in rows if f"{row['pxname']}/{row['svname']}" == of)
        return row[name]

    def _launch(self) -> subprocess.Popen[bytes]:
        shutil.copy(SOURCE / "shares.map", self.folder)
        (self.folder / "haproxy.cfg").write_text(self._configuration())
        return self._spawn(
            self._program,
            ["-db", "-f", str(self.folder / "haproxy.cfg")],
            environment={"LC_ALL": "C"} | self._environment,
        )

    def _configuration(self) -> str:
        given = (SOURCE / "haproxy.cfg").read_text()
        given = re.sub(r"^resolvers .*?\n\n", "", given, flags=re.M | re.S)
        given = given.replace(INSIDE, str(self.folder)).replace(" resolvers docker init-addr none", "")
        given = given.replace("bind :8080", f"bind {HOST}:{self.port}")
        given = given.replace("bind :8081", f"bind {HOST}:{self.console}")
        given = re.sub(r"ipv4@127\.0\.0\.1:\d+", f"ipv4@{HOST}:{self._admin}", given)
        for backend, ports in self._backends.items():
            lines = "\n".join(f"    server {backend}{n} {HOST}:{port}" for n, port in enumerate(ports, 1))
            given = re.sub(
                rf"(^backend {backend}\n.*?)^    server-template .*?$", rf"\1{lines}", given, flags=re.M | re.S
            )
        assert "server-template" not in given
        return given

    def _answers(self) -> bool:
        return "Uptime" in self.say("show info")
