"""Building blocks of dashboards, their queries, and the JSON that Grafana reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

COLUMNS = 24
"""columns of Grafana's grid"""
SOURCE = {"type": "prometheus", "uid": "prometheus"}
RATE = "[$__rate_interval]"


class Query(NamedTuple):
    expr: str
    legend: str = ""


class Panel(NamedTuple):
    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    says: str = ""
    stacked: bool = False


class Row(NamedTuple):
    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    uid: str
    title: str
    rows: Sequence[Row]


# ── queries ─────────────────────────────────────────────────────────────────────────────────────


def rate(metric: str, *by: str, where: str = "") -> Query:
    """Events per second, by these labels."""
    return Query(f"sum{_by(by)} (rate({metric}{where}{RATE}))", _legend(by) or "all")


def most(metric: str, *by: str, where: str = "") -> Query:
    """A gauge of the relays: each relay counts everything, so the maximum is taken."""
    return Query(f"max{_by(by)} ({metric}{where})", _legend(by) or "all")


def counted(metric: str, *by: str) -> Query:
    """The same, summed over the other labels."""
    return Query(f"sum{_by(by)} (max without (instance) ({metric}))", _legend(by) or "all")


def total(metric: str, *by: str, where: str = "") -> Query:
    return Query(f"sum{_by(by)} ({metric}{where})", _legend(by) or "all")


def percentiles(histogram: str, *by: str, of: Sequence[float] = (0.5, 0.95), where: str = "") -> list[Query]:
    inner = ", ".join([*by, "le"])
    return [
        Query(
            f"histogram_quantile({share}, sum by ({inner}) (rate({histogram}_bucket{where}{RATE})))",
            f"p{share * 100:g} {_legend(by)}".strip(),
        )
        for share in of
    ]


def p95(histogram: str, *by: str) -> list[Query]:
    return [query._replace(legend=_legend(by) or "p95") for query in percentiles(histogram, *by, of=(0.95,))]


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _legend(labels: Sequence[str]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def number(title: str, query: Query, unit: str = "short", says: str = "") -> Panel:
    return Panel(title, [query], unit, "stat", 4, says)


# ── JSON for Grafana ─────────────────────────────────────────────────────────────────────────────

HEIGHTS = {"row": 1, "stat": 4, "timeseries": 8, "bargauge": 8}


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["crochet"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["crochet"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
                "title": "",
                "icon": "external link",
            }
        ],
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": list(_placed(dashboard)),
    }


def _placed(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    """Lay out rows from top to bottom, and the panels of a row from left to right, wrapping at the edge."""
    made, y = 0, 0
    for row in dashboard.rows:
        made += 1
        yield {
            "id": made,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": HEIGHTS["row"]},
        }
        y, x, highest = y + HEIGHTS["row"], 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, highest = 0, y + highest, 0
            made += 1
            yield _panel(made, panel, x, y)
            x, highest = x + panel.width, max(highest, HEIGHTS[panel.kind])
        y += highest


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    custom = {"custom": {"fillOpacity": 20, "stacking": {"mode": "normal"}}} if panel.stacked else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHTS[panel.kind]},
        "fieldConfig": {"defaults": {"unit": panel.unit, **custom}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
            }
            for place, query in enumerate(panel.queries)
        ],
    }
