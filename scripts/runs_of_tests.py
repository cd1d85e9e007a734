"""What runs of the tests tell: how long each takes and which got slower, and which do not end the same each time.

    python scripts/runs_of_tests.py durations REPORT.xml [--keep FOLDER]
    python scripts/runs_of_tests.py flaky [--runs 10] PYTEST ARGUMENTS...

`durations` reads pytest's JUnit report, compares it with the newest run kept in the folder, and keeps this one there as
JSON: {"at", "commit", "seconds": {test: seconds}}. `make test` does so after each whole run. `flaky` repeats a run and
exits with 1 if a test passed once and failed another time.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

SLOWEST = 20
GREW = 1.5
GREW_SECONDS = 2.0
"""a test is reported that takes so many times as long as before, and so many seconds more"""


class Case(NamedTuple):
    """A test as one run saw it. `seconds`: with what its fixtures took."""

    name: str
    seconds: float
    outcome: str


def cases(report: Path) -> list[Case]:
    """The tests of a JUnit report. Raises OSError and ParseError where it cannot be read."""
    found = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    return [
        Case(
            f"{case.get('classname')}::{case.get('name')}",
            float(case.get("time", 0)),
            next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed"),
        )
        for case in found
    ]


# ── how long ────────────────────────────────────────────────────────────────────────────────────


def durations(report: Path, folder: Path) -> Iterator[str]:
    """Lines on this run, beside the newest one in the folder; keeps this one."""
    seconds = {case.name: case.seconds for case in cases(report) if case.outcome != "skipped"}
    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted(folder.glob("*.json"))
    before: dict[str, float] = json.loads(kept[-1].read_text())["seconds"] if kept else {}
    now = dt.datetime.now(dt.UTC)
    run = {"at": now.isoformat(timespec="seconds"), "commit": commit(), "seconds": seconds}
    (folder / f"{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(run, indent=0))
    yield f"{len(seconds)} tests took {sum(seconds.values()):,.0f} s, all processes together. The slowest:"
    for name in sorted(seconds, key=lambda each: -seconds[each])[:SLOWEST]:
        yield f"{seconds[name]:8.1f}  {name}"
    grew = {
        name: (before[name], now_takes)
        for name, now_takes in seconds.items()
        if name in before and now_takes > GREW * before[name] and now_takes > before[name] + GREW_SECONDS
    }
    if before:
        yield f"Slower than in {kept[-1].name}: {len(grew) or 'none'}"
    for name, (then, now_takes) in sorted(grew.items(), key=lambda each: each[1][0] - each[1][1]):
        yield f"{then:8.1f} -> {now_takes:.1f}  {name}"


def commit() -> str:
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


# ── flaky ───────────────────────────────────────────────────────────────────────────────────────


def flaky(runs: int, arguments: list[str]) -> bool:
    """Run pytest so often; print what differed and what failed each time. Returns whether any test differed."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, runs + 1):
            report = Path(folder, f"{number}.xml")
            command = [sys.executable, "-m", "pytest", "-q", "--junitxml", str(report), *arguments]
            output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            print(f"run {number}: {output.splitlines()[-1] if output else 'no output'}", flush=True)
            for case in cases(report):
                outcomes[case.name].append(case.outcome)
    bad = {name: [each in ("failure", "error") for each in every] for name, every in outcomes.items()}
    differed = {name: every for name, every in bad.items() if any(every) and not all(every)}
    for name, every in sorted(differed.items(), key=lambda each: -sum(each[1])):
        print(f"flaky: failed {sum(every)} of {len(every)} times: {name}")
    for name in (name for name, every in bad.items() if all(every)):
        print(f"failed each time: {name}")
    return bool(differed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    how_long = commands.add_parser("durations")
    how_long.add_argument("report", type=Path)
    how_long.add_argument("--keep", type=Path, default=Path(".state/tests/durations"))
    repeated = commands.add_parser("flaky")
    repeated.add_argument("--runs", type=int, default=10)
    options, arguments = parser.parse_known_args()
    if options.command == "flaky":
        return int(flaky(options.runs, arguments))
    for line in durations(options.report, options.keep):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
