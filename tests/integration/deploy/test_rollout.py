"""deploy/scripts/rollout-kubernetes with a stand-in for kubectl: what runs afterwards, and what a failure leaves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.ended import Ended, failed, succeeded
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

SCRIPTS = ROOT / "deploy" / "scripts"
ALL = ("relay", "ingest", "search", "orthos", "api", "flower")


class Cluster:
    """Runs `two`, after an update from `one`; a release is an overlay and the tag of its images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ALL:
            (folder / name).write_text(f"6 {name}-one\n7 {name}-two\n")
            (folder / f"{name}.wanted").write_text("two")
        (folder / "note").write_text("updated " + " ".join(f"{name}-one" for name in ALL))
        (folder / "pods").write_text("2 2 1\n")
        (folder / "calls").touch()

    def rollout(self, *arguments: str, fails: str = "") -> Ended:
        (self.folder / "calls").write_text("")
        environment = {
            "PATH": f"{ROOT / 'tests' / 'support' / 'rollout'}:{os.environ['PATH']}",  # noqa: TID251 - for a program
            "STATE": str(self.folder),
            "CROCHET_KEY": "a key",
            "FAILS": fails,
        }
        command = [str(SCRIPTS / "rollout-kubernetes"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        """Those that change something, or wait."""
        calls = (self.folder / "calls").read_text().splitlines()
        return [call for call in calls if not call.startswith(("get ", "annotate "))]

    @property
    def tags(self) -> dict[str, str]:
        """The release that each Deployment rolls out."""
        return {name: (self.folder / name).read_text().split()[-1].removeprefix(f"{name}-") for name in ALL}

    @property
    def paused(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.paused")}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def everywhere(tag: str) -> dict[str, str]:
    return dict.fromkeys(ALL, tag)


# ── updates ─────────────────────────────────────────────────────────────────────────────────────


def test_update_waits_for_the_migration_and_every_service(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("update", "three"))
    assert cluster.tags == everywhere("three")
    assert cluster.calls[:4] == [
        "kustomize three",
        "delete job migrate --ignore-not-found",
        "apply --kustomize three",
        "wait --for=condition=complete job/migrate --timeout=15m",
    ]
    assert cluster.calls[4:-1] == [f"rollout status deployment/{name} --timeout=15m" for name in ALL]
    assert cluster.calls[-1].startswith("exec --stdin replicaset/api-three ")


def test_back_undoes_the_update_of_every_service(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("update", "three"))
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")
    assert failed(cluster.rollout("back"), "no canary or update to take back")
    assert cluster.tags == everywhere("two")


def test_back_goes_to_what_ran_and_not_to_a_canary(cluster: Cluster) -> None:
    """Which was not taken back before the update."""
    assert succeeded(cluster.rollout("canary", "crochet-tasks:bad"))
    assert succeeded(cluster.rollout("update", "three"))
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


def test_back_after_an_update_to_the_canary_goes_to_what_ran_before_both(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("canary", "crochet-tasks:three"))
    assert succeeded(cluster.rollout("update", "three"))
    assert (cluster.tags, cluster.paused) == (everywhere("three"), set())
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


def test_back_changes_all_or_nothing(cluster: Cluster) -> None:
    """Kubernetes keeps five ReplicaSets of each."""
    assert succeeded(cluster.rollout("update", "three"))
    (cluster.folder / "flower").write_text("8 flower-three\n")
    assert failed(cluster.rollout("back"), "NotFound", "flower-two")
    assert cluster.tags == everywhere("three")


def test_a_way_back_that_failed_is_repeated(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("update", "three"))
    assert failed(cluster.rollout("back", fails="rollout undo deployment/orthos *"))
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


def test_an_update_that_failed_and_is_repeated_does_not_count_as_before(cluster: Cluster) -> None:
    assert failed(cluster.rollout("update", "three", fails="wait *job/migrate*"))
    assert succeeded(cluster.rollout("update", "four"))
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


@pytest.mark.parametrize(("overlay", "fails"), [("missing", ""), ("three", "delete job *"), ("three", "apply *")])
def test_an_update_that_fails_releases_no_canary(cluster: Cluster, overlay: str, fails: str) -> None:
    assert succeeded(cluster.rollout("canary", "crochet-tasks:bad"))
    assert failed(cluster.rollout("update", overlay, fails=fails))
    assert cluster.paused == {"api", "search"}
    assert succeeded(cluster.rollout("back"))
    assert (cluster.tags, cluster.paused) == (everywhere("two"), set())


def test_an_overlay_that_is_wrong_changes_nothing(cluster: Cluster) -> None:
    assert failed(cluster.rollout("update", "missing"), "no such overlay")
    assert cluster.calls == ["kustomize missing"]
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


# ── canaries ────────────────────────────────────────────────────────────────────────────────────


def test_a_canary_is_a_rollout_that_pauses_after_its_first_pod(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("canary", "crochet-tasks:next"))
    assert cluster.calls[:4] == [
        call.format(name)
        for name in ("api", "search")
        for call in ("set image deployment/{} *=crochet-tasks:next", "rollout pause deployment/{}")
    ]
    assert cluster.paused == {"api", "search"}


def test_a_canary_is_checked_itself_when_it_is_ready(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("canary", "crochet-tasks:next"))
    assert cluster.calls[4:6] == [
        f"wait --for=condition=Ready pod --timeout=10m --selector app.kubernetes.io/name={name},pod-template-hash=next"
        for name in ("api", "search")
    ]
    assert cluster.calls[6].startswith("exec --stdin replicaset/api-next ")


def test_a_canary_is_paused_when_it_has_a_pod(cluster: Cluster) -> None:
    """Not before the controller has seen the new image, nor while the count is that of the old one."""
    (cluster.folder / "pods").write_text("2 1 3\n2 2\n2 2 1\n")
    assert succeeded(cluster.rollout("canary", "crochet-tasks:next"))
    assert (cluster.folder / "pods").read_text() == "2 2 1\n"


def test_a_canary_without_a_pod_is_no_success(cluster: Cluster) -> None:
    (cluster.folder / "pods").write_text("2 2\n")
    assert failed(cluster.rollout("canary", "crochet-tasks:next"), "api: no pod of the new image")


@pytest.mark.parametrize(
    "fails", ["set image deployment/api*", "rollout pause *", "set image deployment/search*", "wait *"]
)
def test_a_canary_that_failed_is_taken_back_alone(cluster: Cluster, fails: str) -> None:
    assert failed(cluster.rollout("canary", "crochet-tasks:bad", fails=fails))
    assert succeeded(cluster.rollout("back"))
    assert (cluster.tags, cluster.paused) == (everywhere("two"), set())
    assert not [call for call in cluster.calls if call.startswith("rollout undo deployment/relay")]
    assert failed(cluster.rollout("back"), "no canary or update to take back")
    assert cluster.tags == everywhere("two")


def test_the_end_of_a_canary_starts_no_more_pods_of_it(cluster: Cluster) -> None:
    assert succeeded(cluster.rollout("canary", "crochet-tasks:bad"))
    assert succeeded(cluster.rollout("back"))
    assert cluster.calls[:4] == [
        call.format(name)
        for name in ("api", "search")
        for call in ("set image deployment/{} *=crochet-tasks:two", "rollout resume deployment/{}")
    ]


def test_a_second_canary_takes_the_place_of_the_first(cluster: Cluster) -> None:
    for tag in ("bad", "better"):
        assert succeeded(cluster.rollout("canary", f"crochet-tasks:{tag}"))
    assert cluster.tags == {**everywhere("two"), "api": "better", "search": "better"}
    assert succeeded(cluster.rollout("back"))
    assert cluster.tags == everywhere("two")


def test_there_is_no_canary_of_half_an_update(cluster: Cluster) -> None:
    assert failed(cluster.rollout("update", "three", fails="wait *job/migrate*"))
    assert failed(cluster.rollout("canary", "crochet-tasks:bad"), "an update has not ended")


# ── both scripts ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_a_wrong_call_shows_how_it_is_called(script: str) -> None:
    done = subprocess.run([SCRIPTS / script, "upgrade"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{script} update " in done.stderr
    assert f"{script} back " in done.stderr
