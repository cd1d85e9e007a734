"""The log of a process, sent to a collector by OTLP over HTTP: each line as it stands on standard error.

Loaded only where CROCHET_OTLP_LOGS is on, in the process that does the work, after any fork. What a process logs before
is on its standard error alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.log_utils import std_to_otel
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from crochet_tasks.settings import Settings
from crochet_tasks.telemetry.tracing import EXPORT_SECONDS, SCHEDULE_SECONDS, resource_of

OF_EXPORT = ("opentelemetry", "urllib3")
"""loggers of the export itself: their lines would beget others"""
BATCH_LINES, QUEUE_LINES = 512, 4096
"""how many are sent in one request, and how many wait at most: then the oldest are dropped"""


class LogExport(logging.Handler):
    """Sends what the process logs, as the handler of standard error formats it: so it is masked, too."""

    def __init__(self, service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
        super().__init__()
        assert settings.otlp_url is not None
        self._provider = LoggerProvider(Resource.create(resource_of(service, queues)), shutdown_on_exit=False)
        exporter = OTLPLogExporter(
            endpoint=settings.otlp_url.get_secret_value().rstrip("/") + "/v1/logs", timeout=EXPORT_SECONDS
        )
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                exporter,
                max_queue_size=QUEUE_LINES,
                schedule_delay_millis=1000 * SCHEDULE_SECONDS,
                max_export_batch_size=BATCH_LINES,
            )
        )
        self._logger = self._provider.get_logger("crochet_tasks")
        root = logging.getLogger()
        self.setFormatter(next((each.formatter for each in root.handlers if each.formatter is not None), None))
        self.addFilter(lambda record: record.name.partition(".")[0] not in OF_EXPORT)
        root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._logger.emit(
                timestamp=int(record.created * 1e9),
                severity_number=std_to_otel(record.levelno),
                severity_text=record.levelname,
                body=self.format(record),
            )
        except Exception:  # noqa: BLE001 - as handlers of the standard library do
            self.handleError(record)

    def stop(self) -> None:
        logging.getLogger().removeHandler(self)
        self._provider.shutdown()
