"""Real servers for tests: RabbitMQ, Redis and Postgres, each private to this process; fixtures are in conftest.py.

`start` after `stop` or `kill` gives the same URL with what a real server would have kept: Postgres all that was
committed, RabbitMQ what is durable, Redis its data after `stop` and nothing after `kill`. All of it is gone with the
folder. Whatever ends the test process ends its servers, see tests/support/keeper.py. The programs are those of
the Debian packages, which `make services` installs.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, unquote

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from crochet_tasks.embedded import privileges
from tests.support.server import ANSWER_SECONDS, HOST, Server, find_program, take_port
from tests.support.waiting import SECONDS, eventually

USER = "crochet"
ALARMS = {
    "memory": (
        "vm_memory_monitor set_vm_memory_high_watermark [{absolute,1}]",
        "vm_memory_monitor set_vm_memory_high_watermark [0.4]",
    ),
    "disk": (
        "rabbit_disk_monitor set_disk_free_limit [1000000000000000]",
        "rabbit_disk_monitor set_disk_free_limit [20000000]",
    ),
}
"""of RabbitMQ: what raises an alarm, and what ends it"""
ALARM_FIELDS = {"memory": "mem_alarm", "disk": "disk_free_alarm"}
"""where the management API says so"""


class Postgres(Server):
    """A Postgres of Debian's, 15 to 18. `url` is that of the database `crochet`, which has no tables."""

    gentle = signal.SIGINT
    last = signal.SIGQUIT
    modes: ClassVar = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
    settings: ClassVar = {
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "max_connections": "100",
        "shared_buffers": "64MB",
        "fsync": "off",  # killed processes lose nothing by it, only a power cut would
        "max_wal_size": "256MB",
        "dynamic_shared_memory_type": "mmap",  # in the data folder: /dev/shm would keep that of a killed server
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "jit": "off",
    }

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder)
        self._settings = {**self.settings, **settings}
        self._programs = find_program("postgresql", "usr/lib/postgresql/1[5-8]/bin/postgres").parent
        self._data = self.folder / "data"
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return self._url(USER)

    def start(self) -> None:
        if self.running:
            return
        new = not self._data.exists()
        if new:
            self._initialise()
        super().start()
        if new:
            self._run("CREATE DATABASE {}", USER)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut the server down: `smart` waits until all clients are gone, `immediate` is a crash that it announces."""
        self._end(self.modes[mode])

    def new_database(self, template: str = "template1", name: str | None = None) -> str:
        """The URL of a new database, a copy of `template`, which has no connections; see `create` in conftest.py."""
        name = name or f"test_{next(self._numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database if it is there, also from under those who are connected."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", str(make_url(url).database))

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=USER,
            password=self._password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=int(ANSWER_SECONDS),
        )

    def _run(
        self,
        statement: Literal[
            "CREATE DATABASE {}",
            "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY",
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
        ],
        *names: str,
    ) -> None:
        with closing(self._connect()) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _initialise(self) -> None:
        account = self._account()
        self._data.mkdir(mode=0o700)
        os.chown(self._data, account.uid, account.gid)
        word = self.folder / "password"
        word.touch(mode=0o600)
        word.write_text(self._password)
        os.chown(word, account.uid, account.gid)
        arguments = [
            "--username",
            USER,
            "--auth=scram-sha-256",
            "--pwfile=/dev/stdin",
            "--no-instructions",
            "--no-sync",
        ]
        arguments += ["--locale=C", "--encoding=UTF8"]
        with word.open("rb") as stdin, self._run_in_data("initdb", arguments, stdin.fileno()) as initdb:
            status = initdb.wait()
        word.unlink()
        if status != 0:
            shutil.rmtree(self._data)
            raise self.broken(f"cannot make its data folder (initdb's status is {status})")

    def _launch(self) -> subprocess.Popen[bytes]:
        # A killed server leaves it, and the next would trust it if its pid were reused.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        arguments = []
        for name, value in {**self._settings, "port": str(self.port)}.items():
            arguments += ["-c", f"{name}={value}"]
        return self._run_in_data("postgres", arguments)

    def _run_in_data(
        self, program: str, arguments: Sequence[str] = (), stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        # By a handle, not by name: when we are root, the server's user cannot enter the folders above. Nor would
        # privileges.HERE do, because the programs of Postgres 15 leave their working directory and try to come back.
        handle = os.open(self._data, os.O_PATH)
        try:
            where = ["-D", f"/proc/self/fd/{handle}"]
            environment = {"LC_ALL": "C"}
            return self._spawn(
                self._programs / program, [*where, *arguments], environment=environment, stdin=stdin, handles=[handle]
            )
        finally:
            os.close(handle)

    def _account(self) -> privileges.Account:
        return privileges.server_account()

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True


class Redis(Server):
    """A Redis that writes its data only when it is stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = find_program("redis-server", "usr/bin/redis-server", "usr/local/bin/redis-server")

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def start(self) -> None:
        super().start()
        (self.folder / "dump.rdb").unlink(missing_ok=True)  # or it would come back after a kill

    def flush(self) -> None:
        """Remove all keys of all databases."""
        if not self._ask("FLUSHALL").endswith("+OK\r\n"):
            raise self.broken("does not flush")

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = self.folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind {HOST}\nport {self.port}\nrequirepass {self._password}\ndir {self.folder}\n"
            'save ""\nappendonly no\nshutdown-on-sigterm save\n'
        )
        return self._spawn(self._program, [str(settings)], environment={"LC_ALL": "C"})

    def _answers(self) -> bool:
        return self._ask("PING").endswith("+PONG\r\n")  # not so while it loads its data

    def _ask(self, command: str) -> str:
        with socket.create_connection((HOST, self.port), ANSWER_SECONDS) as connection:
            connection.sendall(f"AUTH {self._password}\r\n{command}\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return answers.read().decode().removesuffix("+OK\r\n")  # that of QUIT


class RabbitMQ(Server):
    """A RabbitMQ of one node, with its management and metrics. `url` is that of the vhost "/"."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Itself, not the wrapper in /usr/sbin, which changes the user and writes to /var.
        self._program = find_program("rabbitmq-server", "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
        self._api_port, self._metrics_port, self._node_port, self._names_port = (take_port() for _ in range(4))
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return self._url("/")

    @property
    def _node(self) -> str:
        return f"x{self.port}@localhost"

    @property
    def api_url(self) -> str:
        """The management API, with user and password."""
        return f"http://{USER}:{self._password}@{HOST}:{self._api_port}/api"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self._metrics_port}/metrics"

    def new_vhost(self) -> str:
        """The URL of a new vhost."""
        name = f"test-{next(self._numbers)}"
        self.api("PUT", f"/vhosts/{name}")
        self.api("PUT", f"/permissions/{name}/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
        return self._url(name)

    def delete_vhost(self, url: str) -> None:
        """Remove a vhost with its queues and connections."""
        self.api("DELETE", f"/vhosts/{quote(unquote(url.rpartition('/')[2]), safe='')}")

    def settle(self) -> None:
        """Return when a crash would find all quorum queues again.

        Where it keeps the messages of a new one RabbitMQ writes down about a second later. If it is killed before, the
        queue is still there and never works again, whatever has been confirmed (rabbitmq-server issue 10070).
        """
        queues = [queue for queue in self.api("GET", "/queues") if queue["type"] == "quorum"]
        names = [f"{queue['vhost'].replace('/', '%2F')}_{queue['name']}".encode() for queue in queues]

        def written() -> bool:
            files = b"".join(file.read_bytes() for file in self.folder.glob("data/*/quorum/*/names.dets"))
            return all(bytes([len(name)]) + name in files for name in names)

        eventually(written, report=self.tail)

    @contextlib.contextmanager
    def alarm(self, resource: Literal["memory", "disk"]) -> Iterator[None]:
        """RabbitMQ believes that this runs out: it reads nothing more from connections that publish."""
        limit, usual = ALARMS[resource]
        self._evaluate(limit)
        try:
            eventually(lambda: self.api("GET", "/nodes")[0][ALARM_FIELDS[resource]])
            yield
        finally:
            self._evaluate(usual)

    def _evaluate(self, call: str) -> None:
        """Have the node call an Erlang function, as rabbitmqctl does, which takes seconds to start."""
        program = str(find_program("erlang-base", "usr/lib/erlang/bin/erl_call"))
        command = [program, "-n", self._node, "-a", call]
        subprocess.run(command, env=self._environment(), check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)

    def api(self, method: str, path: str, body: object = None) -> Any:
        """What the management API answers; None if it is nothing. `path` begins behind /api."""
        login = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
        with closing(http.client.HTTPConnection(HOST, self._api_port, timeout=SECONDS)) as connection:
            headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
            connection.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise self.broken(f"answers {method} {path} with {answer.status} {content.decode(errors='replace')}")
        return json.loads(content) if content else None

    def _url(self, vhost: str) -> str:
        return f"amqp://{USER}:{self._password}@{HOST}:{self.port}/{quote(vhost, safe='')}"

    def _launch(self) -> subprocess.Popen[bytes]:
        self._write("settings.conf", self._settings())
        self._write("plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")
        self._write("advanced.config", "[].\n")
        self._write("nothing", "")
        (self.folder / ".erlang.cookie").unlink(missing_ok=True)  # it is read-only, also for us
        self._write(".erlang.cookie", self._password, mode=0o400)
        return self._spawn(self._program, [], environment=self._environment())

    def _write(self, name: str, content: str, mode: int = 0o600) -> None:
        with os.fdopen(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(content)

    def _settings(self) -> str:
        settings = {
            "default_user": USER,
            "default_pass": self._password,
            "log.file": "false",  # all on standard output, which is our log
            "log.console": "true",
            "log.console.level": "info",
            "log.console.use_colors": "off",
            "management.tcp.ip": HOST,
            "management.tcp.port": self._api_port,
            "prometheus.tcp.ip": HOST,
            "prometheus.tcp.port": self._metrics_port,
            "collect_statistics_interval": 1000,  # milliseconds; the API shows the lengths of queues of so long ago
            "disk_free_limit.absolute": "20MB",  # publishers wait below it
            "raft.wal_max_size_bytes": 16 << 20,  # half a gigabyte otherwise
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # where Erlang looks for its cookie
            "RUNNING_UNDER_SYSTEMD": "true",  # so no shell stays between us and the server
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "nothing"),  # and nothing of /etc
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "settings.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self.folder / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "ERL_EPMD_PORT": str(self._names_port),  # its own epmd, too
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            # Few threads, and none that waits busily: the machine is for the tests.
            " +S 1:1 +SDcpu 1:1 +SDio 2 +A 4 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), ANSWER_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            greeted = connection.recv(1) == b"\x01"  # the frame of connection.start
        return greeted and self.api("GET", "/overview")["node"] != ""
