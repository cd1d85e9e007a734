"""The script that compares runs of tests, on tests and reports made for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "scripts" / "runs_of_tests.py"
TESTS = """
from pathlib import Path

RUNS = Path(__file__).with_name("runs")


def test_that_passes() -> None:
    pass


def test_that_fails() -> None:
    assert False


def test_that_fails_every_other_time() -> None:
    RUNS.write_text(RUNS.read_text() + "." if RUNS.exists() else ".")
    assert len(RUNS.read_text()) % 2
"""
REPORT = """<testsuites><testsuite>
<testcase classname="tests.one" name="test_a" time="{0}"/>
<testcase classname="tests.one" name="test_b" time="1.0"><failure/></testcase>
<testcase classname="tests.one" name="test_c" time="0.0"><skipped/></testcase>
</testsuite></testsuites>"""


def run(*arguments: str | Path, where: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.long
def test_a_test_that_fails_now_and_then_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(TESTS)
    done = run("flaky", "--runs", "3", "-p", "no:cacheprovider", "test_made.py", where=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[3:] == [
        "flaky: failed 1 of 3 times: test_made::test_that_fails_every_other_time",
        "failed each time: test_made::test_that_fails",
    ]


def test_what_got_slower_is_named_and_each_run_is_kept(tmp_path: Path) -> None:
    printed = []
    for seconds in (1, 9):
        (tmp_path / "junit.xml").write_text(REPORT.format(seconds))
        done = run("durations", "junit.xml", "--keep", "kept", where=tmp_path)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
        kept = sorted(tmp_path.glob("kept/*.json"))
        assert json.loads(kept[-1].read_text())["seconds"] == {"tests.one::test_a": seconds, "tests.one::test_b": 1}
        kept[-1].rename(kept[-1].with_name(f"0{seconds}.json"))
    assert "Slower" not in printed[0]
    assert "1.0 -> 9.0  tests.one::test_a" in printed[1].splitlines()[-1]
