"""Tasks beside the pipeline: checks of a deployment."""

from __future__ import annotations

import os
import socket

from crochet_tasks.app import app
from crochet_tasks.db import schema
from crochet_tasks.db.process import here


# The caller gets the error as the result; the message must not become a dead letter.
@app.task(name="maintenance.probe", ignore_result=False, acks_on_failure=True)
def probe() -> dict[str, str]:
    """Return host, process and schema of a worker. `crochet doctor` reads the result."""
    with here().database.transaction() as connection:
        found = schema.revision(connection)
    return {"host": socket.gethostname(), "process": str(os.getpid()), "schema": found or "none"}
