"""Beside the stages: tasks that look after a deployment."""

from __future__ import annotations

import os
import socket

from crochet_tasks.app import app, here
from crochet_tasks.db import schema


@app.task(name="maintenance.probe", ignore_result=False)
def probe() -> dict[str, str]:
    """Say who answers and what it sees: the one task whose result is read, by `crochet doctor`."""
    with here().database.transaction() as connection:
        found = schema.revision(connection)
    return {"host": socket.gethostname(), "process": str(os.getpid()), "schema": found or "none"}
