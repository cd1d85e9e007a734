"""How the processes of a deployment are started."""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-m")
CROCHET = (*PYTHON, "crochet_tasks")
STAGES = ("worker", "--queues", "ingest,context,remediations,maintenance")
SEARCH = ("worker", "--queues", "search,best")
STORE = ("worker", "--queues", "orthos")
EVERYTHING = ("worker",)
RELAY = ("relay",)
WHOLE = (RELAY, STAGES, SEARCH, STORE)
"""one of each process that a deployment needs"""
