"""What operators read beside the state of the servers: what this process uses, its caches, and its recent problems."""

from __future__ import annotations

import os
import time

from flask import current_app

from api import process, resources
from api.recent_problems import MINUTES, RecentProblems
from crochet_tasks.schemas.answers import CacheUse, Connections, Details, ProcessUse


def details() -> Details:
    """Those of the process that answers: a server has several."""
    recent: RecentProblems = current_app.extensions["crochet.recent_problems"]
    caches = {
        cache.name: CacheUse(
            hits=cache.hits,
            misses=cache.misses,
            hit_rate=cache.hits / looked if (looked := cache.hits + cache.misses) else None,
            bytes=cache.bytes,
            limit_bytes=cache.most,
        )
        for cache in resources.catalog().caches
    }
    return Details(process=_use(), caches=caches, problems=recent.counts(), minutes=MINUTES)


def _use() -> ProcessUse:
    import psutil

    own, pool = psutil.Process(), process.current().database.pool()
    with own.oneshot():
        cpu = own.cpu_times()
        return ProcessUse(
            pid=os.getpid(),
            seconds=time.time() - own.create_time(),
            memory_bytes=own.memory_info().rss,
            cpu_seconds=cpu.user + cpu.system,
            threads=own.num_threads(),
            open_files=own.num_fds(),
            connections=Connections(**pool._asdict()),
        )
