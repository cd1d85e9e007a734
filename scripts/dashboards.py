"""Generates Grafana's dashboards, deploy/observability/grafana/dashboards/*.json. `--check` only lists differing ones.

This file defines the dashboards; Grafana reads the generated files. docs/metrics.md describes every metric.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana import RATE, Dashboard, Panel, Query, Row, counted, most, number, p95, percentiles, rate, rendered, total

FOLDER = Path(__file__).parent.parent / "deploy" / "observability" / "grafana" / "dashboards"

PIPELINE = Dashboard(
    "crochet-pipeline",
    "Pipeline",
    [
        Row(
            "How far it is",
            [
                number("Open work", Query("crochet:work_open")),
                number(
                    "Orthos stored", Query("sum(crochet:orthos_stored:rate5m)"), "ops", "per second, over 5 minutes"
                ),
                number("Corpora not closed", most("crochet_corpora_unclosed")),
                number("Not closed for", most("crochet_unclosed_age_seconds"), "s"),
                number(
                    "Failed work",
                    Query("sum(max by (kind) (crochet_work_failed)) or 0 * max(crochet_census_timestamp_seconds)"),
                ),
                number("Dead letters", most("crochet_dead_letters")),
            ],
        ),
        Row(
            "Work",
            [
                Panel("Open work by kind", [counted("crochet_work_open", "kind", "state")], width=12, stacked=True),
                Panel("Done", [Query("crochet:work_done:rate5m", "{{kind}}")], "ops", width=12),
                Panel("Published", [rate("crochet_work_published_total", "kind")], "ops"),
                Panel("From written to done", percentiles("crochet_work_turnaround_seconds", "kind", of=(0.95,)), "s"),
                Panel(
                    "Overdue, tried again",
                    [
                        counted("crochet_work_overdue", "kind")._replace(legend="overdue {{kind}}"),
                        most("crochet_work_retrying", "kind")._replace(legend="tried again {{kind}}"),
                    ],
                ),
                Panel("Oldest open work", [most("crochet_work_oldest_age_seconds", "kind")], "s"),
                Panel(
                    "Errors of work",
                    [
                        rate("crochet_work_retried_total", "code")._replace(legend="retried {{code}}"),
                        rate("crochet_work_failures_total", "code")._replace(legend="failed {{code}}"),
                    ],
                    "ops",
                ),
                Panel(
                    "Done twice for nothing, sent twice",
                    [
                        rate("crochet_duplicates_dropped_total", "what"),
                        rate("crochet_work_overdue_released_total")._replace(legend="overdue, published again"),
                    ],
                    "ops",
                ),
            ],
        ),
        Row(
            "Texts and versions",
            [
                Panel("Texts", [most("crochet_texts", "state")], stacked=True),
                Panel("Accepted", [rate("crochet_texts_accepted_total")], "ops"),
                Panel("From accepted to a version", percentiles("crochet_text_version_seconds"), "s"),
                Panel("From accepted to closed", percentiles("crochet_text_closed_seconds"), "s"),
                Panel("Oldest text that is no version", [most("crochet_text_oldest_waiting_age_seconds")], "s"),
                Panel(
                    "Versions behind",
                    [
                        most("crochet_closure_lag_versions")._replace(legend="oldest open work"),
                        most("crochet_index_lag_versions", "compose_service")._replace(
                            legend="index, {{compose_service}}"
                        ),
                    ],
                ),
            ],
        ),
        Row(
            "Queues and tasks",
            [
                Panel("Messages that wait", [most("crochet_queue_messages_ready", "queue")]),
                Panel("Unacknowledged messages", [total("crochet_worker_messages_held", "queue")]),
                Panel("Consumers", [most("crochet_queue_consumers", "queue")]),
                Panel("Tasks", [rate("crochet_tasks_total", "task", "outcome")], "ops"),
                Panel("Duration of tasks, p95", [Query("crochet:task_duration_seconds:p95", "{{task}}")], "s"),
                Panel(
                    "Processor time by tenant, the ten with most",
                    [
                        Query(
                            "topk(10, sum by (tenant) (rate(crochet_task_cpu_seconds_total[5m])))", "tenant {{tenant}}"
                        )
                    ],
                ),
                Panel("From sent to begun, p95", p95("crochet_task_wait_seconds", "task"), "s"),
                Panel("Transactions tried again within a task", [rate("crochet_task_retries_total", "code")], "ops"),
                Panel(
                    "Messages",
                    [
                        rate("crochet_messages_published_total")._replace(legend="confirmed"),
                        rate("crochet_publish_failures_total", "code")._replace(legend="not taken, {{code}}"),
                        rate("crochet_dead_letters_buried_total", "reason")._replace(legend="dead, {{reason}}"),
                    ],
                    "ops",
                ),
                Panel(
                    "Workers silent for",
                    [Query("time() - crochet_worker_progress_timestamp_seconds", "{{compose_service}} {{instance}}")],
                    "s",
                ),
            ],
        ),
    ],
)

ORTHOS = Dashboard(
    "crochet-orthos",
    "Orthos by shape",
    [
        Row(
            "What there is",
            [
                Panel("Orthos", [most("crochet_orthos", "shape")], kind="bargauge", width=12),
                Panel("Orthos over time", [most("crochet_orthos", "shape")], width=12, stacked=True),
                Panel("Batches", [most("crochet_batches", "shape")]),
                Panel("Size of batches", percentiles("crochet_batch_orthos")),
                Panel("Corpora and versions", [most("crochet_corpora"), most("crochet_versions")]),
            ],
        ),
        Row(
            "What is found",
            [
                Panel("Stored", [Query("crochet:orthos_stored:rate5m", "{{shape}}")], "ops", width=12, stacked=True),
                Panel("Found", [rate("crochet_orthos_found_total", "shape")], "ops"),
                Panel("Duration of searches", percentiles("crochet_search_duration_seconds"), "s"),
            ],
        ),
        Row(
            "What waits for new texts",
            [
                Panel("Phrases due", [rate("crochet_phrases_due_total")], "ops"),
                Panel("Batches merged", [rate("crochet_batches_merged_total")], "ops"),
            ],
        ),
    ],
)

HTTP = "http_server_request_duration_seconds"
API = Dashboard(
    "crochet-api",
    "API",
    [
        Row(
            "Now",
            [
                number("Requests", rate(f"{HTTP}_count"), "reqps"),
                number(
                    "Answered with 5xx", Query("crochet:http_requests:error_ratio5m"), "percentunit", "without probes"
                ),
                number("p95", Query("crochet:http_request_duration_seconds:p95"), "s", "without events and probes"),
                number("In hand", total("http_server_active_requests")),
            ],
        ),
        Row(
            "Requests",
            [
                Panel("By route", [rate(f"{HTTP}_count", "http_route", "http_request_method")], "reqps", width=12),
                Panel("By status", [rate(f"{HTTP}_count", "http_response_status_code")], "reqps", width=12),
                Panel("Latency", percentiles(HTTP, of=(0.5, 0.95, 0.99)), "s", width=12),
                Panel("Latency by route, p95", p95(HTTP, "http_route"), "s", width=12),
                Panel("Problems by code", [rate("crochet_api_problems_total", "code")], "reqps", width=12),
                Panel("Problems by route", [rate("crochet_api_problems_total", "http_route")], "reqps", width=12),
                Panel("Callers", [rate("crochet_api_credentials_total", "kind", "outcome")], "reqps", width=24),
            ],
        ),
        Row(
            "Caches",
            [
                Panel(
                    "Cache hits",
                    [
                        Query(
                            f'sum by (cache) (rate(crochet_cache_lookups_total{{outcome="hit"}}{RATE}))'
                            f" / sum by (cache) (rate(crochet_cache_lookups_total{RATE}))",
                            "{{cache}}",
                        )
                    ],
                    "percentunit",
                ),
                Panel("Bytes cached", [Query("sum by (cache) (crochet_cache_bytes)", "{{cache}}")], "bytes"),
            ],
        ),
    ],
)

SERVICE = "compose_service"
DATABASE = Dashboard(
    "crochet-database",
    "Database and processes",
    [
        Row(
            "Database",
            [
                number("Size", most("crochet_database_bytes"), "bytes"),
                number("Last census", Query("time() - max(crochet_census_timestamp_seconds)"), "s", "its age"),
                number(
                    "Age of queue lengths",
                    Query("time() - max(crochet_queues_seen_timestamp_seconds)"),
                    "s",
                    "since they were read",
                ),
                Panel(
                    "Statements", [rate("crochet_db_statement_duration_seconds_count", "operation")], "ops", width=12
                ),
                Panel(
                    "Statements, p95", [Query("crochet:db_statement_duration_seconds:p95", "{{compose_service}}")], "s"
                ),
                Panel("Statements by operation, p95", p95("crochet_db_statement_duration_seconds", "operation"), "s"),
                Panel("Transactions", [rate("crochet_db_transaction_duration_seconds_count", "outcome")], "ops"),
                Panel("Duration of transactions", percentiles("crochet_db_transaction_duration_seconds"), "s"),
                Panel("Errors", [rate("crochet_db_errors_total", "code")], "ops"),
                Panel("Duration of a census", percentiles("crochet_census_duration_seconds"), "s"),
                Panel("Censuses that failed", [rate("crochet_census_failures_total")], "ops"),
                Panel(
                    "Connections",
                    [
                        total("crochet_db_connections_used", SERVICE)._replace(legend="used {{compose_service}}"),
                        total("crochet_db_connections_open", SERVICE)._replace(legend="open {{compose_service}}"),
                        total("crochet_db_connections_limit", SERVICE)._replace(legend="limit {{compose_service}}"),
                    ],
                ),
                Panel(
                    "Wait for a connection, p95",
                    [Query("crochet:db_connection_wait_seconds:p95", "{{compose_service}}")],
                    "s",
                ),
            ],
        ),
        Row(
            "Processes",
            [
                Panel("Up", [Query('up{job="crochet"}', "{{compose_service}} {{instance}}")], width=12),
                Panel("Versions of the program", [total("crochet_service_info", "version", SERVICE)], width=12),
                Panel("Memory", [total("crochet_process_resident_memory_bytes", SERVICE, "role")], "bytes"),
                Panel("Processors", [rate("crochet_process_cpu_seconds_total", SERVICE)], "none", says="cores in use"),
                Panel("Processes", [total("crochet_processes", SERVICE)]),
                Panel("Threads", [total("crochet_process_threads", SERVICE)]),
                Panel("Open files", [total("crochet_process_open_fds", SERVICE)]),
                Panel(
                    "Disk that is free",
                    [
                        Query(
                            "min by (compose_service) (crochet_disk_free_bytes / crochet_disk_size_bytes)",
                            "{{compose_service}}",
                        )
                    ],
                    "percentunit",
                ),
            ],
        ),
        Row(
            "RabbitMQ",
            [
                Panel(
                    "Memory",
                    [
                        Query("rabbitmq_process_resident_memory_bytes", "used"),
                        Query("rabbitmq_resident_memory_limit_bytes", "limit"),
                    ],
                    "bytes",
                    width=12,
                ),
                Panel(
                    "Disk",
                    [
                        Query("rabbitmq_disk_space_available_bytes", "free"),
                        Query("rabbitmq_disk_space_available_limit_bytes", "limit"),
                    ],
                    "bytes",
                    width=12,
                ),
            ],
        ),
    ],
)

OBJECTIVE = "{{objective}}"
LEVELS = Dashboard(
    "crochet-levels",
    "Service levels",
    [
        Row(
            "Budgets of 30 days",
            [
                Panel(
                    "Budget left",
                    [Query("1 - crochet:objective_burn:30d", OBJECTIVE)],
                    "percentunit",
                    width=12,
                    says="below 0: it is used up",
                ),
                Panel(
                    "Burn rate",
                    [
                        Query("crochet:objective_burn:1h", f"{OBJECTIVE}, 1 h"),
                        Query("crochet:objective_burn:6h", f"{OBJECTIVE}, 6 h"),
                        Query("crochet:objective_burn:3d", f"{OBJECTIVE}, 3 d"),
                    ],
                    width=12,
                    says="at 1 the budget lasts for exactly 30 days",
                ),
                Panel(
                    "Bad",
                    [Query("crochet:objective_bad:rate5m / crochet:objective_all:rate5m", OBJECTIVE)],
                    "percentunit",
                ),
                Panel("Answers from outside", [Query('probe_success{job="outside"}', "{{instance}}")]),
                Panel(
                    "Certificates expire in",
                    [Query('probe_ssl_earliest_cert_expiry{job="outside"} - time()', "{{instance}}")],
                    "s",
                ),
            ],
        ),
        Row(
            "Machines",
            [
                Panel(
                    "Disks that are free",
                    [Query("node_filesystem_avail_bytes / node_filesystem_size_bytes", "{{instance}} {{mountpoint}}")],
                    "percentunit",
                ),
                Panel(
                    "Memory available",
                    [Query("node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}")],
                    "percentunit",
                ),
                Panel(
                    "Processors idle",
                    [Query(f'avg by (instance) (rate(node_cpu_seconds_total{{mode="idle"}}{RATE}))', "{{instance}}")],
                    "percentunit",
                ),
                Panel(
                    "Connections of Postgres",
                    [
                        most("crochet_db_server_connections")._replace(legend="open"),
                        most("crochet_db_server_connections_limit")._replace(legend="limit"),
                    ],
                ),
                Panel("Replication behind", [most("crochet_db_replication_behind_bytes")], "bytes"),
                Panel("Redis failures", [rate("crochet_redis_failures_total", "use")], "ops"),
            ],
        ),
    ],
)

DASHBOARDS = (PIPELINE, ORTHOS, API, DATABASE, LEVELS)


def files() -> dict[Path, str]:
    return {
        FOLDER / f"{dashboard.uid.removeprefix('crochet-')}.json": json.dumps(rendered(dashboard), indent=2) + "\n"
        for dashboard in DASHBOARDS
    }


def main() -> None:
    made = files()
    there = set(FOLDER.glob("*.json"))
    differ = [path for path, content in made.items() if path not in there or path.read_text() != content]
    if "--check" in sys.argv[1:]:
        wrong = sorted(path.name for path in {*differ, *(there - made.keys())})
        sys.exit(f"not as scripts/dashboards.py makes them: {', '.join(wrong)}" if wrong else 0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in there - made.keys():
        path.unlink()
    for path in differ:
        path.write_text(made[path])
        print(path.name)


if __name__ == "__main__":
    main()
