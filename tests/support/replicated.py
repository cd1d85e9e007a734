"""Servers of which more than one runs, as in deploy/kubernetes/overlays/production: three RabbitMQ, two Postgres.

`Balancer` stands for the Service before RabbitMQ. Postgres needs none: an address may name several servers.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.support.server import HOST, Server, find_program
from tests.support.services import USER, Postgres, RabbitMQ


class Names(Server):
    """Erlang's epmd, by which the nodes of a cluster find each other: it must outlive each of them."""

    @property
    def url(self) -> str:
        return f"epmd://{HOST}:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        program = find_program("erlang-base", "usr/bin/epmd", "usr/lib/erlang/erts-*/bin/epmd")
        return self._spawn(program, ["-port", str(self.port), "-address", HOST], environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        program = find_program("erlang-base", "usr/bin/epmd", "usr/lib/erlang/erts-*/bin/epmd")
        command = [str(program), "-port", str(self.port), "-names"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Node(RabbitMQ):
    """A node of a cluster; it joins the others when it is started the first time."""

    def __init__(self, folder: Path, names: Names, others: Sequence[Node]) -> None:
        super().__init__(folder)
        self._names_port, self._others = names.port, others
        if others:
            self._password = others[0]._password  # also the cookie, by which nodes trust each other

    def is_whole(self) -> bool:
        """Whether every quorum queue is on three nodes that run."""
        queues = [queue for queue in self.api("GET", "/queues") if queue["type"] == "quorum"]
        return bool(queues) and all(len(queue.get("online", [])) == 3 for queue in queues)

    def _settings(self) -> str:
        settings = {"cluster_partition_handling": "pause_minority"}
        if self._others:
            settings["cluster_formation.peer_discovery_backend"] = "classic_config"
            settings |= {
                f"cluster_formation.classic_config.nodes.{number}": other._node
                for number, other in enumerate([*self._others, self], 1)
            }
        return super()._settings() + "".join(f"{name} = {value}\n" for name, value in settings.items())


class Balancer(Server):
    """HAProxy before the nodes of RabbitMQ, with the vhost's address; clients of a node that is gone are cut off."""

    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        super().__init__(folder)
        self._nodes = nodes

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{self._nodes[0]._password}@{HOST}:{self.port}//"

    def _launch(self) -> subprocess.Popen[bytes]:
        servers = "".join(f"    server {node.port} {HOST}:{node.port}\n" for node in self._nodes)
        (self.folder / "haproxy.cfg").write_text(
            "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1h\n    timeout server 1h\n"
            f"listen rabbitmq\n    bind {HOST}:{self.port}\n    balance leastconn\n    option redispatch\n"
            f"    default-server check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n{servers}"
        )
        program = find_program("haproxy", "usr/sbin/haproxy")
        return self._spawn(program, ["-db", "-f", str(self.folder / "haproxy.cfg")], environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        return all(node.running for node in self._nodes)


class Standby(Postgres):
    """A copy of another Postgres that follows it, until it is promoted."""

    def __init__(self, folder: Path, primary: Postgres) -> None:
        super().__init__(folder)
        self._primary, self._password = primary, primary._password

    def start(self) -> None:
        if not self._data.exists():
            self._initialise()
        Server.start(self)

    def promote(self) -> None:
        with closing(self._connect()) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def _initialise(self) -> None:
        account = self._account()
        self._data.mkdir(mode=0o700)
        shutil.chown(self._data, account.uid, account.gid)
        source = f"host={HOST} port={self._primary.port} user={USER} password={self._password}"
        arguments = ["--dbname", source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        with self._run_in_data("pg_basebackup", arguments) as copying:
            status = copying.wait()
        if status != 0:
            raise self.broken(f"cannot copy the primary (pg_basebackup's status is {status})")


def wait_for_standby(primary: Postgres, standby: Standby) -> str:
    """From now on a commit is answered when the standby has it, too; the address of both, without a database."""
    with closing(primary._connect()) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
    return f"postgresql://{USER}:{primary._password}@{HOST}:{primary.port},{HOST}:{standby.port}"
