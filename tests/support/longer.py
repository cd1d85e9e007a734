"""Parameters of which the default run tries some, and `make test-long` the others."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def by_run(default: Iterable[object], *, longer: Iterable[object]) -> list[object]:
    """For `pytest.mark.parametrize` with one name."""
    return [*default, *(pytest.param(one, marks=pytest.mark.long) for one in longer)]
