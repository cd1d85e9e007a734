"""What this process counted: the fixture `counted` reads counters by the values of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crochet_tasks.telemetry import instruments
from crochet_tasks.telemetry.metrics_endpoint import Files

Counted = Callable[[str], dict[str, float]]


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """Metrics are recorded as long as the test runs. Reads the values of a counter, by those of its labels."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    instruments.begin(folder, "api")

    def read(name: str) -> dict[str, float]:
        samples = [sample for family in Files(folder).collect() for sample in family.samples if sample.name == name]
        named = {" ".join(value for _, value in sorted(each.labels.items())): each.value for each in samples}
        return {labels: value for labels, value in named.items() if value}

    yield read
    instruments.end()
