"""The jump host of docker-compose.yml, on a machine between two others: what passes it, and that nothing passes it by.

Three network namespaces in a row: somebody outside, the jump host, and a machine with the admin ports. sshd has the
configuration and the command that docker-compose.yml gives it, and runs as the user of its image.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.namespaces import chain, inside, run
from tests.support.paths import ROOT
from tests.support.server import Missing, fail_or_skip, find_program
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration

SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["bastion"]
ALLOWED = SERVICE["command"][1].removeprefix("PermitOpen=").split()
BASTION, ADMIN = "10.99.1.2", "10.99.2.2"
ACCOUNT = 10001
FORBIDDEN = "redis:6379"
SERVER = """
import selectors, socket, sys
wait = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    wait.register(socket.create_server(("", port)), selectors.EVENT_READ, port)
print("ready", flush=True)
while True:
    for key, _ in wait.select():
        connection, _ = key.fileobj.accept()
        with connection:
            connection.sendall(b"port %d" % key.data)
"""
REACH = (
    "import socket, sys\nprint(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1).recv(99).decode())"
)


class JumpHost:
    """Three machines, sshd on the one in the middle, and a folder of keys."""

    def __init__(self, names: dict[str, str], folder: Path) -> None:
        self.names, self.folder = names, folder
        self.log = folder / "log"
        self.allow("alice")

    def key(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def fingerprint(self, name: str) -> str:
        return run("ssh-keygen", "-l", "-f", str(self.key(name))).split()[1]

    def allow(self, *names: str, options: str = "") -> None:
        """These keys and no others may come, each with these options."""
        lines = [f"{options} {self.key(name).with_suffix('.pub').read_text()}".lstrip() for name in names]
        (self.folder / "keys" / "authorized_keys").write_text("".join(lines))

    def ssh(self, *arguments: str, key: str = "alice") -> list[str]:
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={os.devnull}",
            "IdentitiesOnly=yes",
        ]
        ssh = ["ssh", "-F", os.devnull, "-p", "2222", "-i", str(self.key(key)), *(f"-o{option}" for option in options)]
        return inside(self.names["outside"], *ssh, *arguments, f"jump@{BASTION}")

    def tried(
        self, *arguments: str, key: str = "alice", then: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run ssh with these arguments, and after the address what follows."""
        return subprocess.run(
            [*self.ssh(*arguments, key=key), *then],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def logged(self, pattern: str) -> bool:
        return re.search(pattern, self.log.read_text()) is not None


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


@pytest.fixture(scope="module")
def host() -> Iterator[JumpHost]:
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="crochet-jump-") as name:  # pytest's are for one user only
        folder = Path(name)
        folder.chmod(0o755)
        yield from _host(folder, running)


def _host(folder: Path, running: list[subprocess.Popen[bytes]]) -> Iterator[JumpHost]:
    try:
        sshd = find_program("openssh-server", "usr/sbin/sshd")
        find_program("openssh-client", "usr/bin/ssh")
        with chain("outside", "bastion", "admin") as names:
            yield from _running(JumpHost(_laid_out(names, folder), folder), sshd, running)
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _laid_out(names: dict[str, str], folder: Path) -> dict[str, str]:
    """Routes, so that only the jump host is in the way, and the files that its image has."""
    for name, value in SERVICE["sysctls"].items():
        run(*inside(names["bastion"], "sysctl", "-q", "-w", f"{name}={value}"))
    run(*inside(names["outside"], "ip", "route", "add", "default", "via", BASTION))
    run(*inside(names["admin"], "ip", "route", "add", "default", "via", "10.99.2.1"))
    for part in ("keys", "host"):
        (folder / part).mkdir()
    hosts = "".join(f"{ADMIN} {target.partition(':')[0]}\n" for target in (*ALLOWED, FORBIDDEN))
    (folder / "hosts").write_text(hosts)
    (folder / "passwd").write_text(f"root:x:0:0::/:/bin/false\njump:x:{ACCOUNT}:{ACCOUNT}::/:/bin/false\n")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host" / "key"))
    os.chown(folder / "host" / "key", ACCOUNT, ACCOUNT)
    return names


def _running(host: JumpHost, sshd: Path, running: list[subprocess.Popen[bytes]]) -> Iterator[JumpHost]:
    ports = [target.partition(":")[2] for target in (*ALLOWED, FORBIDDEN)]
    served = host.folder / "served"
    running.append(started(inside(host.names["admin"], sys.executable, "-c", SERVER, *ports), served))
    eventually(lambda: "ready" in served.read_text())
    # As in the image: these users, these names, these rights.
    script = f"mount --bind {host.folder}/passwd /etc/passwd && mount --bind {host.folder}/hosts /etc/hosts"
    script += f' && exec setpriv --reuid {ACCOUNT} --regid {ACCOUNT} --clear-groups --no-new-privs --inh-caps=-all "$@"'
    command = [str(sshd), "-D", "-e", "-f", str(ROOT / "deploy/bastion/sshd_config"), *SERVICE["command"]]
    paths = {"HostKey": "host/key", "AuthorizedKeysFile": "keys/authorized_keys"}
    command += [f"-o{name}={host.folder}/{path}" for name, path in paths.items()]
    mounted = ["unshare", "--mount", "sh", "-ec", script, "sh", *command]
    running.append(started(inside(host.names["bastion"], *mounted), host.log))
    eventually(lambda: running[-1].poll() is not None or host.logged("listening on .* port 2222"))
    assert running[-1].poll() is None, host.log.read_text()
    yield host


def direct(host: JumpHost) -> subprocess.CompletedProcess[str]:
    command = inside(host.names["outside"], sys.executable, "-c", REACH, ADMIN, "5555")
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_admin_ports_cannot_be_reached_directly_but_if_the_jump_host_forwarded(host: JumpHost) -> None:
    assert "TimeoutError" in direct(host).stderr
    forwarding = inside(host.names["bastion"], "sysctl", "-q", "-w")
    try:
        run(*forwarding, "net.ipv4.ip_forward=1")
        assert direct(host).stdout == "port 5555\n"
    finally:
        run(*forwarding, "net.ipv4.ip_forward=0")


@pytest.mark.parametrize("target", ALLOWED)
def test_a_key_opens_a_tunnel_to_every_admin_port(host: JumpHost, target: str) -> None:
    found = host.tried("-W", target)
    assert found.stdout == f"port {target.partition(':')[2]}", found.stderr


def test_a_local_port_is_forwarded(host: JumpHost) -> None:
    tunnel = started(host.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-L", "127.0.0.1:5555:flower:5555"), host.log)
    reach = inside(host.names["outside"], sys.executable, "-c", REACH, "127.0.0.1", "5555")
    try:
        eventually(lambda: subprocess.run(reach, capture_output=True, text=True, check=False).stdout == "port 5555\n")
    finally:
        tunnel.terminate()
        tunnel.wait()


def test_other_ports_are_refused(host: JumpHost) -> None:
    """Also such as somebody listens on, by name or by address."""
    for target in (FORBIDDEN, f"{ADMIN}:6379", f"{ADMIN}:5555", "127.0.0.1:2222"):
        found = host.tried("-W", target)
        assert (found.returncode, found.stdout) != (0, "")
        assert "administratively prohibited" in found.stderr
    assert host.logged(r"denied")


@pytest.mark.parametrize(
    "arguments", [((), ()), ((), ("true",)), (("-t",), ("/bin/sh",)), (("-s",), ("sftp",))], ids=str
)
def test_there_is_no_shell(host: JumpHost, arguments: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    options, command = arguments
    found = host.tried(*options, then=command)
    assert (found.returncode, found.stdout) == (255, ""), found


def test_nothing_is_forwarded_back(host: JumpHost) -> None:
    found = host.tried("-N", "-o", "ExitOnForwardFailure=yes", "-R", "9999:127.0.0.1:22")
    assert found.returncode == 255
    assert "remote port forwarding failed" in found.stderr


def test_who_has_no_key_is_refused_and_logged(host: JumpHost) -> None:
    found = host.tried("-W", "flower:5555", key="mallory")
    assert (found.returncode, found.stdout) == (255, "")
    assert "Permission denied (publickey)" in found.stderr
    assert host.logged(rf"Failed publickey for jump from 10\.99\.1\.1 .*{re.escape(host.fingerprint('mallory'))}")


def test_the_log_says_who_came_and_what_for(host: JumpHost) -> None:
    assert host.tried("-W", "grafana:3000").returncode == 0
    assert host.logged(rf"Accepted publickey for jump from 10\.99\.1\.1 .*{re.escape(host.fingerprint('alice'))}")
    assert host.logged(r"server_request_direct_tcpip\(\).*target grafana port 3000")
    assert host.logged(r"Disconnected from user jump 10\.99\.1\.1")


def test_keys_are_added_narrowed_and_taken_away_while_it_runs(host: JumpHost) -> None:
    assert host.tried("-W", "flower:5555", key="bob").returncode == 255
    try:
        host.allow("bob", options='restrict,port-forwarding,permitopen="flower:5555"')
        assert host.tried("-W", "flower:5555", key="bob").stdout == "port 5555"
        assert "administratively prohibited" in host.tried("-W", "postgres:5432", key="bob").stderr
        host.allow("bob", options='expiry-time="20200101"')
        assert host.tried("-W", "flower:5555", key="bob").returncode == 255
        assert host.tried("-W", "flower:5555").returncode == 255
    finally:
        host.allow("alice")
    assert host.tried("-W", "flower:5555").returncode == 0
