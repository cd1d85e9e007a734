"""docker-compose.yml as the container tests run it: under another name, with an operator's key for the jump host."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError

from crochet_tasks.schemas.reports import CorpusStatus, Status
from tests.support.paths import ROOT
from tests.support.server import take_port
from tests.support.waiting import SECONDS, eventually

COMPOSE = ROOT / "docker-compose.yml"


def polled(poll: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What `poll` returns once that is true. Where it never is, the failure shows its last error."""
    last: list[Exception] = []

    def found() -> Any:
        try:
            return poll()
        except (OperationalError, OSError) as error:
            last[:] = [error]
            return None

    return eventually(found, seconds, pause=1, report=lambda: last)


def connects(port: int) -> bool:
    """Raises OSError where nothing listens."""
    with socket.create_connection(("127.0.0.1", port)):
        return True


class Deployment:
    """docker-compose.yml, running under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.api, self.bastion = take_port(), take_port()
        self.key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        folder.chmod(0o755)  # the user of the container reads it
        (folder / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        owners = ("POSTGRES", "RABBITMQ")
        variables = {
            **{
                f"{user}_PASSWORD": uuid.uuid4().hex
                for user in (*owners, "API", "WORKER", "RELAY", "FLOWER", "BACKUP", "METRICS")
            },
            "CROCHET_FLOWER_AUTH": "user:password",
            "CROCHET_JWT_SECRET": "dec0de" * 12,
            "API_PORT": str(self.api),
            "COMPOSE_PROFILES": "bastion",
            "BASTION_PORT": str(self.bastion),
            "BASTION_KEYS": str(folder),
            "SEARCH_WORKERS": "2",
        }
        self.variables = variables
        self.name = f"crochet-test-{uuid.uuid4().hex[:8]}"
        self._compose = [
            "docker",
            "compose",
            "--project-name",
            self.name,
            "--file",
            str(COMPOSE),
            "--progress",
            "plain",
        ]

    def up(self) -> None:
        self.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "300", seconds=1500)

    def compose(self, *arguments: str, given: str | None = None, seconds: float = 120) -> str:
        # Through env: what is set there wins over an .env that lies in the checkout.
        env = ["env", *(f"{key}={value}" for key, value in self.variables.items())]
        done = subprocess.run(
            [*env, *self._compose, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stderr[-5000:]}"
        return done.stdout

    def ssh(self, *arguments: str) -> list[str]:
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ExitOnForwardFailure=yes",
        ]
        known = ["-F", "/dev/null", "-i", str(self.key), "-p", str(self.bastion)]
        return ["ssh", *known, *(f"-o{option}" for option in options), *arguments, "jump@127.0.0.1"]

    @contextlib.contextmanager
    def tunnel(self, target: str) -> Iterator[str]:
        """The address of a local port that leads to this admin port."""
        port = take_port()
        tunnel = subprocess.Popen(self.ssh("-N", "-L", f"127.0.0.1:{port}:{target}"), stdin=subprocess.DEVNULL)
        try:
            polled(lambda: connects(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.terminate()
            tunnel.wait()

    def crochet(self, *arguments: str, given: str | None = None) -> str:
        """A command, run where the API runs."""
        return self.compose("exec", "--no-TTY", "api", "crochet", *arguments, given=given)

    def status(self) -> list[CorpusStatus]:
        return Status.model_validate_json(self.crochet("status", "--json")).corpora

    def corpus(self, name: str = "harbour") -> CorpusStatus | None:
        """This corpus, once its one text is in and nothing is left to do."""
        for corpus in self.status():
            assert not corpus.work.get("failed"), corpus
            if corpus.corpus == name and corpus.version == 1 and not corpus.work.get("open"):
                return corpus
        return None
