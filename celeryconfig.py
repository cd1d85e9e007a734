"""The settings, mapped onto Celery. Nothing else configures it.

Without a broker everything runs eagerly in one process, driven by `publish.publish_next` from the rows of the outbox.
"""

from crochet_tasks.broker import queues
from crochet_tasks.settings import Settings, checks

_settings = Settings.load()

task_always_eager = _settings.broker_url is None
task_eager_propagates = True

# ── broker ──────────────────────────────────────────────────────────────────────────────────────

broker_url = None if _settings.broker_url is None else queues.address(_settings)
broker_use_ssl = None if _settings.broker_url is None else queues.tls(_settings)
# Publishing fails fast and truthfully with all of these together; with the defaults publishing to a broker
# that accepts nothing succeeds. Every message is confirmed.
broker_connection_timeout = _settings.publish_timeout
broker_transport_options = queues.transport_options(_settings)
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker waits for its broker as long as it takes
broker_heartbeat = 10

task_queues = queues.celery_queues(_settings)
task_default_queue = "maintenance"
task_create_missing_queues = False
task_routes = {f"{name}.*": {"queue": name} for name in queues.WORK}

# ── messages ────────────────────────────────────────────────────────────────────────────────────

# Small payloads are JSON; what a search found travels as bytes in msgpack. Never pickle.
task_serializer = "json"
accept_content = ["json", "msgpack"]

# ── workers ─────────────────────────────────────────────────────────────────────────────────────

task_acks_late = True
task_reject_on_worker_lost = True
task_acks_on_failure = task_acks_on_timeout = False  # permanent failures are dead-lettered
worker_prefetch_multiplier = 1
worker_cancel_long_running_tasks_on_connection_loss = True  # no second run beside the first one
task_soft_time_limit = _settings.task_seconds
task_time_limit = _settings.task_seconds + 10  # for one that does not end when it is asked to
_best = max(checks.BEST_SECONDS, _settings.task_seconds)
task_annotations = {"best.part": {"soft_time_limit": _best, "time_limit": _best + 30}}
worker_lost_wait = 1.0  # no client waits for a result: the message of a killed child is returned soon, not after 10 s
worker_proc_alive_timeout = 60.0  # not 4 s: a child may start on a busy machine, and search with little of a core
worker_consumer = "crochet_tasks.services.worker:Consumer"
worker_redirect_stdouts = False
worker_hijack_root_logger = False
worker_enable_remote_control = True  # Flower and `celery inspect` see the workers

# ── results: only where one is read ─────────────────────────────────────────────────────────────

result_backend = None if _settings.redis_url is None else _settings.redis_url.get_secret_value()
task_ignore_result = True
result_expires = 600
redis_socket_connect_timeout = redis_socket_timeout = 2.0

# ── what Flower shows ───────────────────────────────────────────────────────────────────────────

worker_send_task_events = True
task_send_sent_event = True
task_track_started = True

enable_utc = True
timezone = "UTC"

imports = [
    "crochet_tasks.ingest",
    "crochet_tasks.context",
    "crochet_tasks.remediations",
    "crochet_tasks.search",
    "crochet_tasks.orthos",
    "crochet_tasks.best",
    "crochet_tasks.merging",
    "crochet_tasks.publish",
]
