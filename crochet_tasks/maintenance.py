"""Beside the stages: tasks that look after a deployment."""

from __future__ import annotations

import os
import socket

from crochet_tasks.app import app
from crochet_tasks.db import schema
from crochet_tasks.db.process import here


# Who asked hears of a failure: its message is no dead letter for people to look at.
@app.task(name="maintenance.probe", ignore_result=False, acks_on_failure=True)
def probe() -> dict[str, str]:
    """Say who answers and what it sees: the one task whose result is read, by `crochet doctor`."""
    with here().database.transaction() as connection:
        found = schema.revision(connection)
    return {"host": socket.gethostname(), "process": str(os.getpid()), "schema": found or "none"}
