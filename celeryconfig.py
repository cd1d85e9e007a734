"""The settings, mapped onto Celery. Nothing else configures it.

Without a broker everything runs eagerly in one process, driven by `work.relay` from the rows of the outbox.
"""

task_always_eager = True
task_eager_propagates = True

# Small payloads are JSON; what a search found travels as bytes in msgpack. Never pickle.
task_serializer = "json"
accept_content = ["json", "msgpack"]
task_ignore_result = True

task_acks_late = True
task_reject_on_worker_lost = True
enable_utc = True
timezone = "UTC"

imports = [
    "crochet_tasks.ingest",
    "crochet_tasks.context",
    "crochet_tasks.remediations",
    "crochet_tasks.search",
    "crochet_tasks.orthos",
]
