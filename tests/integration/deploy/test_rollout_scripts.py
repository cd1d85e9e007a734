"""deploy/scripts/rollout with stand-ins for docker and the proxy: what a step that fails leaves behind.

With a real engine: tests/acceptance/deploy/test_rollout.py. The stand-ins are in tests/support/rollout/.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.ended import Ended, failed, succeeded
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

ROLLOUT = ROOT / "deploy" / "scripts" / "rollout"
CONTAINERS = ("relay-1", "ingest-1", "search-1", "orthos-1", "api-1", "api-2", "flower-1")


class Machine:
    """Version 2 runs, after an update from version 1; there is an image of version 3, too."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, folder / "env"
        (folder / "containers").mkdir()
        for name in CONTAINERS:
            (folder / "containers" / name).write_text("crochet-tasks:2\n")
        (folder / "images").write_text("".join(f"crochet-tasks:{version}\n" for version in (1, 2, 3)))
        (folder / "unhealthy").touch()
        (folder / "calls").touch()
        (folder / "last").write_text("10")
        self.settings.write_text("API_PASSWORD=a password\nVERSION=2\nVERSION_BEFORE=1\nROLLOUT=updated")
        self.settings.chmod(0o600)

    def rollout(self, *arguments: str, limit: str = "unlimited", **environment: str) -> Ended:
        """`FAILS`: calls that fail; `limit`: of the size of files, in KiB."""
        (self.folder / "calls").write_text("")
        given = {
            "PATH": f"{ROOT / 'tests' / 'support' / 'rollout'}:{os.environ['PATH']}",  # noqa: TID251 - for a program
            "STATE": str(self.folder),
            "ENV_FILE": str(self.settings),
            "CROCHET_KEY": "a key",
            **environment,
        }
        command = ["bash", "-c", f'ulimit -f {limit} && exec "$0" "$@"', str(ROLLOUT), *arguments]
        return subprocess.run(command, env=given, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    @property
    def running(self) -> dict[str, str]:
        """The image of each container."""
        return {path.name: path.read_text().strip() for path in (self.folder / "containers").iterdir()}

    @property
    def versions(self) -> set[str]:
        return {image.removeprefix("crochet-tasks:") for image in self.running.values()}

    def value(self, name: str) -> str:
        return dict(line.split("=", 1) for line in self.settings.read_text().splitlines())[name]

    def called(self, start: str) -> bool:
        return any(call.startswith(start) for call in self.calls)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


BEFORE = dict.fromkeys(CONTAINERS, "crochet-tasks:2")

# ── there and back ──────────────────────────────────────────────────────────────────────────────


def test_an_update_and_the_way_back(machine: Machine) -> None:
    assert succeeded(machine.rollout("update", "3"))
    assert (machine.versions, len(machine.running)) == ({"3"}, len(CONTAINERS))
    assert (machine.value("VERSION"), machine.value("VERSION_BEFORE")) == ("3", "2")
    assert succeeded(machine.rollout("back"))
    assert (machine.versions, machine.value("VERSION")) == ({"2"}, "2")
    assert failed(machine.rollout("back"), "taken back already", "rollout update")


def test_a_canary_and_the_way_back(machine: Machine) -> None:
    assert succeeded(machine.rollout("canary", "3", "10"))
    assert machine.running == {**BEFORE, "api-canary-1": "crochet-tasks:3", "search-canary-1": "crochet-tasks:3"}
    assert succeeded(machine.rollout("back"))
    assert machine.running == BEFORE


def test_a_canary_with_all_requests_stays_while_the_idle_side_is_updated(machine: Machine) -> None:
    assert succeeded(machine.rollout("canary", "3", "100", CANARIES="2"))
    assert succeeded(machine.rollout("update", "3"))
    assert succeeded(machine.rollout("back"))
    assert (machine.versions, len(machine.running)) == ({"3"}, len(CONTAINERS))


# ── a canary that fails ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "fails"),
    [
        (("canary", "typo", "10"), ""),
        (("canary", "3", "0"), ""),
        (("canary", "3", "10"), "compose up *"),
        (("canary", "3", "10"), "*smoke"),
    ],
    ids=["no image", "no share", "does not start", "does not work"],
)
def test_a_canary_that_failed_is_taken_back_alone(machine: Machine, arguments: tuple[str, ...], fails: str) -> None:
    assert failed(machine.rollout(*arguments, FAILS=fails), "rollout back")
    assert succeeded(machine.rollout("back"))
    assert machine.running == BEFORE
    assert failed(machine.rollout("back"), "taken back already")
    assert machine.running == BEFORE
    assert not machine.called("compose run")


@pytest.mark.parametrize(
    ("variable", "pattern"),
    [("REFUSES", "*canary1 state ready"), ("FAILS", "compose rm *"), ("FAILS", "compose ps * api-canary *")],
    ids=["proxy", "remove", "list"],
)
def test_a_way_back_that_failed_is_repeated(machine: Machine, variable: str, pattern: str) -> None:
    assert succeeded(machine.rollout("canary", "3", "10"))
    assert failed(machine.rollout("back", **{variable: pattern}))
    assert succeeded(machine.rollout("back"))
    assert machine.running == BEFORE


@pytest.mark.parametrize("share", ["0", "101", "08", "ten"])
def test_a_share_is_a_percentage(machine: Machine, share: str) -> None:
    assert failed(machine.rollout("canary", "3", share), "SHARE", "from 1 to 100")
    assert machine.running == BEFORE


def test_a_canary_that_the_proxy_does_not_find_gets_no_requests(machine: Machine) -> None:
    assert failed(machine.rollout("canary", "3", "100", BLIND="yes"), "0 of 1")
    assert not machine.called("proxy: set weight")


def test_a_small_share_is_no_share_of_zero(machine: Machine) -> None:
    assert succeeded(machine.rollout("canary", "3", "1", CANARIES="3"))
    assert any("apis/canary3 1;" in call for call in machine.calls)


def test_what_the_proxy_refuses_is_said(machine: Machine) -> None:
    assert failed(machine.rollout("canary", "3", "10", REFUSES="set weight*"), "the proxy refuses", "No such server")


# ── an update that fails ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fails", ["compose run * migrate", "compose run * roles"])
def test_a_version_that_was_not_started_is_not_in_the_settings(machine: Machine, fails: str) -> None:
    """Or the next `docker compose up` would start it."""
    assert failed(machine.rollout("update", "3", FAILS=fails))
    assert (machine.value("VERSION"), machine.running) == ("2", BEFORE)
    assert succeeded(machine.rollout("back"))
    assert machine.versions == {"2"}


def test_an_image_that_is_missing_does_not_lead_further_back(machine: Machine) -> None:
    assert failed(machine.rollout("update", "typo"), "no image crochet-tasks:typo")
    assert succeeded(machine.rollout("back"))
    assert machine.versions == {"2"}


def test_settings_are_written_whole_or_not_at_all(machine: Machine) -> None:
    """Where the disk is full, too."""
    before = machine.settings.read_text() + "".join(f"\nP{each}={'p' * 60}" for each in range(1000)) + "\n"
    machine.settings.write_text(before)
    assert failed(machine.rollout("update", "3", limit="32"))
    assert machine.settings.read_text() == before
    assert succeeded(machine.rollout("update", "3"))
    assert [line for line in before.splitlines() if line[0] in "AP"] == machine.settings.read_text().splitlines()[:1001]
    assert stat.S_IMODE(machine.settings.stat().st_mode) == 0o600


@pytest.mark.parametrize("service", ["relay", "orthos"])
def test_a_service_without_containers_is_no_success(machine: Machine, service: str) -> None:
    for path in (machine.folder / "containers").glob(f"{service}-*"):
        path.unlink()
    assert failed(machine.rollout("update", "3"), f"{service}: no container runs")


@pytest.mark.parametrize("service", ["relay", "orthos"])
def test_containers_that_are_not_listed_are_no_success(machine: Machine, service: str) -> None:
    assert failed(machine.rollout("update", "3", FAILS=f"compose ps --quiet {service}"))


def test_a_version_of_the_environment_does_not_count(machine: Machine) -> None:
    assert succeeded(machine.rollout("update", "3", VERSION="1", CANARY_VERSION="1"))
    assert machine.versions == {"3"}


def test_a_container_of_another_image_is_no_success(machine: Machine) -> None:
    assert failed(machine.rollout("update", "3", STARTS="crochet-tasks:1"), "crochet-tasks:1", "not of 3")
    assert machine.running == BEFORE


def test_a_version_that_is_not_known_is_not_noted(machine: Machine) -> None:
    assert failed(machine.rollout("update", "3", FAILS="inspect *Config.Image*"))
    assert machine.value("VERSION_BEFORE") == "1"


@pytest.mark.parametrize(
    "environment",
    [{"UNHEALTHY": "api"}, {"FAILS": "inspect *IPAddress*"}, {"REFUSES": "*state drain"}],
    ids=["unhealthy", "without an address", "not drained"],
)
def test_a_step_that_fails_leaves_no_container_too_many(machine: Machine, environment: dict[str, str]) -> None:
    assert failed(machine.rollout("update", "3", **environment), "rollout back")
    assert {name for name in machine.running if name.startswith("api")} == {"api-1", "api-2"}
    assert succeeded(machine.rollout("back"))
    assert (machine.versions, len(machine.running)) == ({"2"}, len(CONTAINERS))


@pytest.mark.parametrize("fails", ["stop api-1", "rm api-1"])
def test_a_step_that_fails_leaves_no_place_without_requests(machine: Machine, fails: str) -> None:
    assert failed(machine.rollout("update", "3", FAILS=fails))
    assert [call for call in machine.calls if call.startswith("proxy: set")] == [
        "proxy: set server apis/api1 state drain",
        "proxy: set server apis/api1 state ready",
    ]


def test_what_is_unhealthy_already_does_not_stop_an_update(machine: Machine) -> None:
    (machine.folder / "unhealthy").write_text("relay-1\napi-2\n")
    assert succeeded(machine.rollout("update", "3"))
    assert machine.versions == {"3"}


def test_a_canary_is_not_waited_for_without_end(machine: Machine) -> None:
    assert succeeded(machine.rollout("canary", "3", "10"))
    assert any("--wait-timeout" in call for call in machine.calls if call.startswith("compose up"))
