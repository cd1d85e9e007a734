"""A real PgBouncer for tests, before a Postgres of services.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from crochet_tasks.embedded import privileges
from tests.support.server import ANSWER_SECONDS, HOST, Server, find_program
from tests.support.services import Postgres


class PgBouncer(Server):
    """A PgBouncer in transaction mode before a Postgres. It ignores no start-up parameter: clients must send none."""

    def __init__(self, folder: Path, server: Postgres, connections: int) -> None:
        super().__init__(folder)
        self._program = find_program("pgbouncer", "usr/sbin/pgbouncer")
        self._server = make_url(server.url)
        self._connections = connections
        self._settings = self.folder / "settings"

    @property
    def url(self) -> str:
        return self.pooled(self._server.render_as_string(hide_password=False))

    def pooled(self, url: str) -> str:
        """The URL of a database of the server, through the pool."""
        return make_url(url).set(host=HOST, port=self.port).render_as_string(hide_password=False)

    def _launch(self) -> subprocess.Popen[bytes]:
        account = self._account()
        self._settings.mkdir(mode=0o700, exist_ok=True)
        os.chown(self._settings, account.uid, account.gid)
        handle = os.open(self._settings, os.O_PATH)  # as for Postgres: its user cannot enter the folders above
        where = f"/proc/self/fd/{handle}"
        server = self._server
        options = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": f"{where}/users",
            "pool_mode": "transaction",
            "default_pool_size": self._connections,
            "max_client_conn": 200,
        }
        lines = ["[databases]", f"* = host={server.host} port={server.port}", "[pgbouncer]"]
        files = {
            "users": f'"{server.username}" "{server.password}"\n',
            "pgbouncer.ini": "\n".join([*lines, *(f"{name} = {value}" for name, value in options.items()), ""]),
        }
        for name, content in files.items():
            path = self._settings / name
            path.touch(mode=0o600)
            path.write_text(content)
            os.chown(path, account.uid, account.gid)
        try:
            return self._spawn(self._program, [f"{where}/pgbouncer.ini"], environment={"LC_ALL": "C"}, handles=[handle])
        finally:
            os.close(handle)

    def _account(self) -> privileges.Account:
        return privileges.server_account()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=int(ANSWER_SECONDS)).close()
        except psycopg.OperationalError:
            return False
        return True
