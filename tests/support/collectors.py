"""Collectors of telemetry for tests: they take what is sent to them and keep it, or take it and never answer.

with Otlp() as collector:              # an OTLP receiver over HTTP; collector.url is CROCHET_OTLP_URL
...
collector.spans                    # what has come so far
with Profiles() as server:             # what Pyroscope's agents push; server.url is CROCHET_PYROSCOPE_URL
with Hanging() as server:              # accepts connections and says nothing, ever
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HOST = "127.0.0.1"


class Post(NamedTuple):
    """A request that came in, unpacked."""

    path: str
    headers: dict[str, str]
    body: bytes


class Collector:
    """An HTTP server that answers every POST with 200 and keeps it."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self._came = threading.Condition()
        posts, came = self.posts, self._came

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                with came:
                    posts.append(Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                    came.notify_all()
                self.send_response(200)
                self.send_header("Content-Type", self.headers.get("Content-Type", "application/octet-stream"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", "0")))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Line(NamedTuple):
    """A log line as it came; `trace`: in hex, or empty."""

    body: str
    level: str
    trace: str
    resource: dict[str, Any]


class Span(NamedTuple):
    """A span as it came: ids in hex, attributes and the resource's as Python values."""

    name: str
    trace: str
    id: str
    parent: str
    """empty where it begins a trace"""
    links: list[tuple[str, str]]
    attributes: dict[str, Any]
    resource: dict[str, Any]
    failed: bool
    events: list[dict[str, Any]]
    kind: str
    """INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER"""


class Otlp(Collector):
    """Takes OTLP over HTTP, in protobuf, as any collector does."""

    @property
    def spans(self) -> list[Span]:
        found = []
        for post in [post for post in self.posts if post.path == "/v1/traces"]:
            for group in ExportTraceServiceRequest.FromString(post.body).resource_spans:
                resource = _values(group.resource.attributes)
                found += [_span(span, resource) for scope in group.scope_spans for span in scope.spans]
        return found

    @property
    def metrics(self) -> list[ExportMetricsServiceRequest]:
        posts = [post for post in self.posts if post.path == "/v1/metrics"]
        return [ExportMetricsServiceRequest.FromString(post.body) for post in posts]

    @property
    def logs(self) -> list[Line]:
        found = []
        for post in [post for post in self.posts if post.path == "/v1/logs"]:
            for group in ExportLogsServiceRequest.FromString(post.body).resource_logs:
                resource = _values(group.resource.attributes)
                records = [record for scope in group.scope_logs for record in scope.log_records]
                found += [_line(each, resource) for each in records]
        return found


def _line(record: Any, resource: dict[str, Any]) -> Line:
    return Line(record.body.string_value, record.severity_text, record.trace_id.hex(), resource)


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        _values(span.attributes),
        resource,
        span.status.code == 2,
        [_values(event.attributes) for event in span.events],
        type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


class Profiles(Collector):
    """Takes what Pyroscope's agents push."""

    @property
    def text(self) -> str:
        """All of it, as far as it is text: names and tags stand in it as they are."""
        return "\n".join(post.body.decode("latin-1") for post in list(self.posts))


class Hanging:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0), backlog=64)
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._socket.getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self._accepted)

    def _run(self) -> None:
        while True:
            try:
                self._accepted.append(self._socket.accept()[0])
            except OSError:
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for each in self._accepted:
            each.close()


def log_lines(log: str) -> list[dict[str, Any]]:
    """A process' log: every line of it is a JSON object."""
    return [json.loads(line) for line in log.splitlines()]


def unresolved(spans: list[Span]) -> list[Span]:
    """Spans whose parent or links have not come."""
    known: dict[str, set[str]] = defaultdict(set)
    for span in spans:
        known[span.trace].add(span.id)
    return [
        span
        for span in spans
        if (span.parent and span.parent not in known[span.trace])
        or any(link not in known[trace] for trace, link in span.links)
    ]
