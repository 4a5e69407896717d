"""A collector of the tests' own: it takes OTLP over HTTP and gRPC, and keeps the spans; or refuses, or is silent."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Taken:
    """A span as it has arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: Mapping[str, Any]
    error: str | None
    exceptions: Sequence[Mapping[str, Any]]
    linked: Sequence[str]
    scope: str
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """What has arrived; `status` is what HTTP is answered."""

    endpoint: str = ""
    status: int = 200
    location: str | None = None
    requests: int = 0
    headers: list[Mapping[str, str]] = field(default_factory=list)
    spans: list[Taken] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def environment(self, **more: str) -> dict[str, str]:
        """What a user sets, and what lets a test not wait."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}

    def take(self, content: bytes, headers: Mapping[str, str]) -> int:
        with self._changed:
            self.requests += 1
            if self.status == 200:
                self.raw.append(content)
                self.headers.append(headers)
                self.spans += _spans(ExportTraceServiceRequest.FromString(content))
            self._changed.notify_all()
            return self.status

    def take_metrics(self, content: bytes, headers: Mapping[str, str]) -> int:
        with self._changed:
            if self.status == 200:
                self.raw.append(content)
                self.metrics = _metrics(ExportMetricsServiceRequest.FromString(content)) or self.metrics
            self._changed.notify_all()
            return self.status

    def wait_for(self, found: Callable[["Collector"], bool], seconds: float = 20) -> None:
        """Wait until what has arrived is what is looked for."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not found(self):
                left = deadline - time.monotonic()
                assert left > 0, [(span.name, span.trace_id[:6]) for span in self.spans]
                self._changed.wait(left)

    def named(self, *names: str) -> list[Taken]:
        return [span for span in self.spans if span.name in names]

    def one(self, name: str) -> Taken:
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def says(self, text: str) -> bool:
        """Whether a text is anywhere in what has arrived, in whatever field."""
        return any(text.encode() in content for content in self.raw)


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """Take spans over HTTP."""
    collector = Collector(status=status)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path in ("/v1/traces", "/v1/metrics"), self.path
            is_trace = self.path == "/v1/traces"
            answer = ExportTraceServiceResponse().SerializeToString()
            take = collector.take if is_trace else collector.take_metrics
            self.send_response(take(content, dict(self.headers)))
            self.send_header("Content-Type", "application/x-protobuf")
            if collector.location is not None:
                self.send_header("Location", collector.location)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def collecting_over_grpc() -> Iterator[Collector]:
    """Take spans over gRPC."""
    import grpc
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

    collector = Collector()

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            collector.take(request.SerializeToString(), dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    class Measurer(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802
            collector.take_metrics(request.SerializeToString(), dict(context.invocation_metadata()))
            return ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Measurer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    collector.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield collector
    finally:
        server.stop(None)


@contextmanager
def frozen() -> Iterator[Collector]:
    """One that was stopped (SIGSTOP): its kernel takes connections, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield Collector(f"http://127.0.0.1:{listener.getsockname()[1]}")


@contextmanager
def gone() -> Iterator[Collector]:
    """None at all: connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield Collector(f"http://127.0.0.1:{port}")


def _spans(request: ExportTraceServiceRequest) -> Iterator[Taken]:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Taken(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    _values(span.attributes),
                    span.status.message if span.status.code == 2 else None,
                    [_values(event.attributes) for event in span.events if event.name == "exception"],
                    [f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links],
                    of_scope.scope.name,
                    _values(of_resource.resource.attributes),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}


@contextmanager
def endless() -> Iterator[Collector]:
    """One whose answer has no end; `requests` says how much of it was taken."""
    sent = [0]

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        sent[0] += connection.send(bytes(65_536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=[listener], daemon=True).start()
        collector = Collector(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield collector
        collector.requests = sent[0]


def _metrics(request: ExportMetricsServiceRequest) -> dict[str, Any]:
    """The values that metrics have by their labels: of a histogram how many there are of them, and their sum."""
    found: dict[str, Any] = {}
    for resource in request.resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            points = getattr(metric, metric.WhichOneof("data")).data_points
            found[metric.name] = {
                tuple(sorted((item.key, item.value.string_value) for item in point.attributes)): (
                    (point.count, point.sum) if hasattr(point, "bucket_counts") else point.as_double or point.as_int
                )
                for point in points
            }
    return found
