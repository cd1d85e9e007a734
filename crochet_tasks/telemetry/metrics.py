"""The table of all metrics. docs/metrics.md has the same one; a test compares them.

Names, units and labels follow Prometheus, http_server_* OpenTelemetry. To add a metric: declare it here, record it
where the thing happens (`metrics.NAME.add(...)`), and add its row to docs/metrics.md. Labels are bounded: never a
corpus, text, work item or key, and of tenants so many numbers, never names.
"""

from __future__ import annotations

from functools import partial

from crochet_tasks.telemetry.instruments import Metric

counter, gauge, histogram = (partial(Metric, kind) for kind in ("counter", "gauge", "histogram"))

SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""seconds of a statement"""
MIDDLE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
"""seconds of a task"""
LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 14_400, 86_400)
"""seconds from a request to its end"""
REQUEST = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30)
"""seconds, as OpenTelemetry advises"""
ORTHOS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 32_768, 65_536)

ALL = ("api", "worker", "relay")
WORKER = ("worker",)
RELAY = ("relay",)
API = ("api",)

# ── tasks ───────────────────────────────────────────────────────────────────────────────────────

TASKS = counter(
    "crochet_tasks_total",
    "tasks",
    "task outcome",
    WORKER,
    "Tasks that ended: done, retried (later, as the error asks) or failed (the message goes to the dead letters). "
    "One whose process was killed is not among them.",
)
TASK_SECONDS = histogram(
    "crochet_task_duration_seconds", "seconds", "task", WORKER, "How long a task ran, tries at once included.", MIDDLE
)
TASK_WAIT = histogram(
    "crochet_task_wait_seconds", "seconds", "task", WORKER, "From when its message was sent to the task's start.", LONG
)
TASK_TRIES = counter(
    "crochet_task_retries_total",
    "tries",
    "task code",
    WORKER,
    "Transactions tried again at once within a task, by the error's code (deadlock, a server that restarts).",
)
TASK_CPU = counter(
    "crochet_task_cpu_seconds_total",
    "seconds",
    "tenant",
    WORKER,
    "Processor time of the threads in which a tenant's tasks ran, without Postgres and RabbitMQ. By the tenant's "
    "number, as `crochet tenants show` has it; other: of tenants beyond the first 200 of a process, and of deleted "
    "corpora.",
)
UNACKNOWLEDGED = gauge(
    "crochet_worker_messages_held",
    "messages",
    "queue",
    WORKER,
    "Messages that the worker has and has not acknowledged: its sum over all workers is what RabbitMQ calls unacked.",
)
PROGRESS = gauge(
    "crochet_worker_progress_timestamp_seconds",
    "seconds",
    "",
    WORKER,
    "When the worker last passed its own check (see `crochet health`), as a Unix time.",
    across="livemax",
)

# ── work ────────────────────────────────────────────────────────────────────────────────────────

PUBLISHED = counter("crochet_work_published_total", "items", "kind", ALL, "Work items whose message was sent.")
MESSAGES = counter("crochet_messages_published_total", "messages", "task", ALL, "Messages that the broker confirmed.")
NOT_PUBLISHED = counter(
    "crochet_publish_failures_total", "messages", "code", ALL, "Messages that the broker did not accept, by error."
)
DONE = counter("crochet_work_done_total", "items", "kind", WORKER, "Work items that are done and committed.")
TURNAROUND = histogram(
    "crochet_work_turnaround_seconds", "seconds", "kind", WORKER, "From when work was written to when it is done.", LONG
)
RETRIED = counter(
    "crochet_work_retried_total",
    "items",
    "kind code",
    ("worker", "relay"),
    "Work items that failed and are tried again, by the error's code.",
)
FAILED = counter(
    "crochet_work_failures_total",
    "items",
    "kind code",
    ("worker", "relay"),
    "Work items that have failed for good, by the error's code.",
)
RELEASED = counter(
    "crochet_work_overdue_released_total", "items", "", RELAY, "Overdue work that the relay has published again."
)
REMOVED = counter(
    "crochet_rows_removed_total",
    "rows",
    "what",
    RELAY,
    "Rows that were deleted because they were older than the settings say (docs/retention.md), by what they are.",
)
LETTERS = counter(
    "crochet_dead_letters_buried_total",
    "messages",
    "queue reason",
    RELAY,
    "Dead letters that the relay has recorded with their work, or kept for people.",
)
DUPLICATES = counter(
    "crochet_duplicates_dropped_total",
    "occurrences",
    "what",
    ("worker", "api"),
    "What was asked for again and not done twice: search or result (a message whose work was done already), trigger "
    "(of an ordered stage, that found nothing to do), best (a message of such a search, as before), text (the corpus "
    "has it), request (an answer kept under its Idempotency-Key).",
)

SECURITY_EVENTS = (
    "key.new_address",
    "second_factor.disabled",
    "second_factor.locked",
    "session.stolen",
    "signature.replayed",
)
"""what the security log has a line about, and somebody should look at"""
SECURITY = counter(
    "crochet_security_events_total",
    "events",
    "event",
    API,
    "Lines of the security log that somebody should look at: a key used from a new address, a second factor that was "
    "taken away or locked by wrong codes, a refresh token used twice, a signed request that came twice.",
)

# ── orthos ──────────────────────────────────────────────────────────────────────────────────────

FOUND = counter(
    "crochet_orthos_found_total",
    "orthos",
    "shape",
    WORKER,
    "Orthos that searches found and published. A search that is repeated counts again.",
)
STORED = counter("crochet_orthos_stored_total", "orthos", "shape", WORKER, "Orthos stored and committed.")
BATCH = histogram("crochet_batch_orthos", "orthos", "", WORKER, "Orthos in a batch that was found and stored.", ORTHOS)
SEARCH_SECONDS = histogram(
    "crochet_search_duration_seconds",
    "seconds",
    "",
    WORKER,
    "Computation of one search, without the database.",
    MIDDLE,
)
DUE = counter(
    "crochet_phrases_due_total", "phrases", "", WORKER, "New phrases that are due: searches go outward from them."
)
MERGED = counter("crochet_batches_merged_total", "batches", "", WORKER, "Batches that were merged into others.")
LAG = gauge(
    "crochet_index_lag_versions",
    "versions",
    "",
    WORKER,
    "How many versions behind the context the phrase index of a process was when its last search began.",
    across="livemax",
)
# ── texts ───────────────────────────────────────────────────────────────────────────────────────

TEXTS = counter("crochet_texts_accepted_total", "texts", "", ("api", "worker"), "New texts accepted by the service.")
TEXT_VERSION = histogram(
    "crochet_text_version_seconds",
    "seconds",
    "",
    WORKER,
    "From a text's acceptance to its version.",
    LONG,
)
TEXT_CLOSED = histogram(
    "crochet_text_closed_seconds",
    "seconds",
    "",
    RELAY,
    "From a text's acceptance to when its corpus had no work left, to some 5 s; each relay measures it by itself.",
    LONG,
)

# ── caches ──────────────────────────────────────────────────────────────────────────────────────

CACHE = counter(
    "crochet_cache_lookups_total",
    "lookups",
    "cache outcome",
    ("api", "worker"),
    "hit or miss: index (phrase index of the process), tree (its phrases as searches number them), best (what a search "
    "for the best orthos has learned), batches (orthos that the API keeps), lines (what these wait on), texts "
    "(those that it has read).",
)

CACHE_BYTES = gauge(
    "crochet_cache_bytes",
    "bytes",
    "cache",
    ("api", "worker"),
    "What a cache holds: batches, lines, index (phrases of corpora), tree, waited (phrases that orthos wait "
    "on), texts.",
)

# ── the database, as a service sees it ──────────────────────────────────────────────────────────

STATEMENT = histogram(
    "crochet_db_statement_duration_seconds",
    "seconds",
    "operation",
    ALL,
    "SQL statements: select, insert, update, delete, with or other.",
    SHORT,
)
TRANSACTION = histogram(
    "crochet_db_transaction_duration_seconds",
    "seconds",
    "outcome",
    ALL,
    "Transactions, from having a connection to committed or rolled_back.",
    MIDDLE,
)
DB_ERRORS = counter(
    "crochet_db_errors_total", "errors", "code", ALL, "Transactions that the database ended, by the error's code."
)
POOL_USED = gauge("crochet_db_connections_used", "connections", "", ALL, "Connections of the pools in use.")
POOL_OPEN = gauge("crochet_db_connections_open", "connections", "", ALL, "Connections of the pools, in use or idle.")
POOL_LIMIT = gauge("crochet_db_connections_limit", "connections", "", ALL, "Connections that the pools may have.")
POOL_WAIT = histogram(
    "crochet_db_connection_wait_seconds", "seconds", "", ALL, "How long a transaction waited for a connection.", SHORT
)

# ── Redis, without which all goes on ────────────────────────────────────────────────────────────

REDIS_FAILURES = counter(
    "crochet_redis_failures_total",
    "failures",
    "use",
    ALL,
    "What Redis did not do, and was done without: results (not stored, or not awaited), rate_limits (a request that "
    "one process counted by itself), worker_use and queue_depths (not noted, or not shown).",
)

# ── the API ─────────────────────────────────────────────────────────────────────────────────────

REQUESTS = histogram(
    "http_server_request_duration_seconds",
    "seconds",
    "http_request_method http_route http_response_status_code",
    API,
    "Requests, by route template, from when they were complete to when their answer, or stream, begins: the wait for a "
    "thread counts. Requests whose head never arrives complete are not counted. Their count is the rate, by status the "
    "errors.",
    REQUEST,
)
ACTIVE = gauge("http_server_active_requests", "requests", "", API, "Requests that a thread works on.")
PROBLEMS = counter("crochet_api_problems_total", "problems", "code http_route", API, "Problem documents, by code.")
READS = counter(
    "crochet_api_reads_total",
    "snapshots",
    "source",
    API,
    "Snapshots of a corpus, where CROCHET_DATABASE_READ_URL is set: from the standby, or from the primary.",
)
CREDENTIALS = counter(
    "crochet_api_credentials_total",
    "checks",
    "kind outcome",
    API,
    "Callers that were looked up, by what they showed (key, token, page: the cookie of a page, none) and what came of "
    "it: good, or the error's code, such as unauthorized, forbidden, signature_refused or database_unavailable.",
)

# ── the census: the state of the store and of the queues, as a relay sees it ────────────────────

OPEN = gauge(
    "crochet_work_open",
    "items",
    "kind state",
    RELAY,
    "Open work: ready (to be published), held (by a spent budget or a pause), published (in flight), waiting "
    "(backs off before it is tried again) or parked (an ordered stage whose turn it is not).",
)
OVERDUE = gauge("crochet_work_overdue", "items", "kind", RELAY, "Open work published longer ago than CROCHET_LEASE.")
RETRYING = gauge("crochet_work_retrying", "items", "kind", RELAY, "Open work that has failed at least once.")
DEAD = gauge("crochet_work_failed", "items", "kind", RELAY, "Work that has failed for good.")
OLDEST = gauge(
    "crochet_work_oldest_age_seconds", "seconds", "kind", RELAY, "Age of the oldest open work.", across="livemax"
)
WAITING = gauge("crochet_texts", "texts", "state", RELAY, "Texts: accepted, ingested, current, failed, cancelled.")
OLDEST_TEXT = gauge(
    "crochet_text_oldest_waiting_age_seconds",
    "seconds",
    "",
    RELAY,
    "Age of the oldest text that is no version yet; 0 without one.",
    across="livemax",
)
STORED_ORTHOS = gauge("crochet_orthos", "orthos", "shape", RELAY, "Orthos in the store.")
STORED_BATCHES = gauge("crochet_batches", "batches", "shape", RELAY, "Batches in the store.")
CORPORA = gauge("crochet_corpora", "corpora", "", RELAY, "Corpora.")
UNCLOSED = gauge(
    "crochet_corpora_unclosed", "corpora", "", RELAY, "Corpora with open or failed work that finds orthos."
)
UNCLOSED_AGE = gauge(
    "crochet_unclosed_age_seconds",
    "seconds",
    "",
    RELAY,
    "For how long the corpus that has been unclosed for longest has been so, as far as this relay knows.",
    across="livemax",
)
CLOSURE_LAG = gauge(
    "crochet_closure_lag_versions",
    "versions",
    "",
    RELAY,
    "The most versions that a corpus has from the oldest with open or failed work on; held work does not count.",
    across="livemax",
)
VERSIONS = gauge("crochet_versions", "versions", "", RELAY, "Versions of all corpora together.")
DEAD_LETTERS = gauge("crochet_dead_letters", "messages", "", RELAY, "Dead letters that name no work, kept for people.")
DATABASE_BYTES = gauge("crochet_database_bytes", "bytes", "", RELAY, "Size of the database on disk.")
TABLE_BYTES = gauge(
    "crochet_table_bytes",
    "bytes",
    "table part",
    RELAY,
    "Size of a table on disk: its rows with what is stored apart from them (table), and its indexes.",
)
TABLE_DEAD_ROWS = gauge(
    "crochet_table_dead_rows", "rows", "table", RELAY, "Rows that were changed or deleted and not yet vacuumed, about."
)
TRANSACTION_AGE = gauge(
    "crochet_db_oldest_transaction_age_seconds",
    "seconds",
    "",
    RELAY,
    "Age of the oldest open transaction in the database, of any client: vacuum removes nothing that it can see.",
    across="livemax",
)
TRANSACTION_IDLE = gauge(
    "crochet_db_idle_transaction_age_seconds",
    "seconds",
    "",
    RELAY,
    "For how long the open transaction that was forgotten for longest has done nothing.",
    across="livemax",
)
SERVER_CONNECTIONS = gauge(
    "crochet_db_server_connections", "connections", "", RELAY, "Connections of all clients to the database server."
)
SERVER_CONNECTIONS_LIMIT = gauge(
    "crochet_db_server_connections_limit",
    "connections",
    "",
    RELAY,
    "How many connections the database server takes, without those that are kept for superusers.",
)
REPLICATION_BEHIND = gauge(
    "crochet_db_replication_behind_bytes",
    "bytes",
    "",
    RELAY,
    "How much of the server's log the slowest replica or replication slot has not taken; 0 without one.",
)
QUEUE = gauge("crochet_queue_messages_ready", "messages", "queue", RELAY, "Messages that wait in a queue; also -dead.")
CONSUMERS = gauge("crochet_queue_consumers", "consumers", "queue", RELAY, "Consumers of a queue.")
QUEUES_READ_AT = gauge(
    "crochet_queues_seen_timestamp_seconds",
    "seconds",
    "",
    RELAY,
    "When the lengths of the queues were last read, as a Unix time.",
)
CENSUS_READ_AT = gauge(
    "crochet_census_timestamp_seconds", "seconds", "", RELAY, "When the last census was taken, as a Unix time."
)
CENSUS_SECONDS = histogram(
    "crochet_census_duration_seconds", "seconds", "", RELAY, "How long a census took in the database.", SHORT
)
CENSUS_FAILED = counter("crochet_census_failures_total", "censuses", "", RELAY, "Censuses that could not be taken.")

# ── the processes of a service: measured when the endpoint is asked (metrics_endpoint.py) ───────────────────────────

SERVICE = gauge("crochet_service_info", "1", "service version", ALL, "1; the service's name and the program's version.")
MEMORY = gauge(
    "crochet_process_resident_memory_bytes",
    "bytes",
    "role",
    ALL,
    "Resident memory: main (the service's first process), children together.",
)
CPU = counter("crochet_process_cpu_seconds_total", "seconds", "role", ALL, "CPU time, that of ended children included.")
FILES = gauge("crochet_process_open_fds", "descriptors", "role", ALL, "Open file descriptors.")
PROCESSES = gauge("crochet_processes", "processes", "role", ALL, "Processes.")
THREADS = gauge("crochet_process_threads", "threads", "role", ALL, "Threads.")
DISK_FREE = gauge("crochet_disk_free_bytes", "bytes", "", ALL, "Free space where the state folder is, or would be.")
DISK_SIZE = gauge("crochet_disk_size_bytes", "bytes", "", ALL, "Size of that file system.")
