"""The command line."""

from crochet_tasks.cli.program import app, main

__all__ = ["app", "main"]
