"""The units of deploy/systemd, read by systemd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.integration


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """With a program that is installed here; of search workers, number 1."""
    for path in (ROOT / "deploy" / "systemd").iterdir():
        if path.suffix in (".service", ".target"):
            text = path.read_text().replace("/opt/crochet/bin/crochet", sys.executable)
            (tmp_path / path.name.replace("@", "@1")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--generators=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
