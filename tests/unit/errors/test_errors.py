"""Errors: the same here as where they were raised."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from crochet_tasks.app import app
from crochet_tasks.errors import DatabaseUnavailable


def by_result(error: Exception) -> Any:
    """As who asks for the result of a task gets it."""
    sent = json.dumps(app.backend.prepare_exception(error, serializer="json"))
    return app.backend.exception_to_python(json.loads(sent))


@pytest.mark.parametrize(
    "carried", [by_result, lambda error: pickle.loads(pickle.dumps(error))], ids=["result", "pickle"]
)
def test_an_error_of_another_process_is_the_same_error(carried: Callable[[Exception], Any]) -> None:
    """`crochet doctor` says which one a worker answered with."""
    error = DatabaseUnavailable(reason="it is full")
    got = carried(error)
    assert type(got) is DatabaseUnavailable
    assert (str(got), got.code) == (str(error), "database_unavailable")
