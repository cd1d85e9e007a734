"""The table of metrics: what is declared is documented, named as Prometheus wants it, and recorded somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crochet_tasks.telemetry import labels, metrics
from crochet_tasks.telemetry.instruments import METRICS, Metric
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `((?:crochet|http)_\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*) \|$", re.MULTILINE)

# ── the table ───────────────────────────────────────────────────────────────────────────────────


def test_the_document_lists_every_metric_as_it_is_declared() -> None:
    """And none that there is not."""
    documented = {row[0]: row[1:] for row in ROW.findall(DOCUMENT.read_text())}
    declared = {
        each.name: (
            each.kind + (", greatest" if each.kind == "gauge" and each.across == "livemax" else ""),
            each.unit,
            ", ".join(f"`{label}`" for label in each.labels),
            "all" if each.services == metrics.ALL else ", ".join(each.services),
            each.says,
        )
        for each in METRICS
    }
    assert documented == declared


@pytest.mark.parametrize("declared", METRICS, ids=lambda declared: str(declared.name))
def test_names_and_units_are_as_prometheus_wants_them(declared: Metric) -> None:
    """Base units as suffix, counters `_total`; no label without a bound."""
    assert re.fullmatch(r"(crochet|http_server)_[a-z_]+[a-z]", declared.name)
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    for unit in ("seconds", "bytes"):
        assert (unit in declared.name) == (declared.unit == unit)
    assert (declared.kind == "histogram") == bool(declared.buckets)
    assert list(declared.buckets) == sorted(set(declared.buckets))
    assert not {"corpus", "text", "work", "key", "path", "id"} & set(declared.labels)
    assert "tenant" not in declared.labels or declared is metrics.TASK_CPU


def test_every_metric_is_recorded_somewhere() -> None:
    """None is only declared."""
    root = Path(metrics.__file__).parents[2]
    sources = [path for folder in ("crochet_tasks", "api") for path in (root / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in sources)
    names = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert len(names) == len(METRICS)
    assert {name for name in names if not re.search(rf"\bmetrics\.{name}\b", code)} == set()


def test_there_are_few_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numbers, never as names; beyond some hundreds they share a label. One that has a label keeps it."""
    monkeypatch.setattr(labels, "_tenants", set())
    tenants = [labels.tenant(number) for number in range(1, 1001)]
    assert tenants[: labels.MOST_TENANTS] == [str(number) for number in range(1, labels.MOST_TENANTS + 1)]
    assert set(tenants[labels.MOST_TENANTS :]) == {"other"}
    assert (labels.tenant(7), labels.tenant(None)) == ("7", "other")


def test_there_are_few_shapes() -> None:
    """Rare shapes share one label."""
    sides = range(2, 65)
    flat = {labels.shape((a, b)) for a in sides for b in range(a, 65)}
    solid = {labels.shape((a, b, c)) for a in sides for b in range(a, 20) for c in range(b, 20)}
    assert len(flat | solid) < 60
    assert (labels.shape((2, 3)), labels.shape((2, 2, 2, 2)), labels.shape((8, 8))) == ("2x3", "other", "other")
