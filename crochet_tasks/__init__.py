"""Finds every box of words in a text whose lines are phrases of that text. `crochet_tasks.celery` is the Celery app."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`celery -A crochet_tasks` finds the app here; nothing is imported before it is asked for."""
    if name == "celery":
        from crochet_tasks.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
