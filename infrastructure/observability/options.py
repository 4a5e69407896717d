"""What is sent where, as the settings say it; read without OpenTelemetry, which is imported only where it acts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit, urlunsplit

_HTTP, _GRPC = "http://localhost:4318", "http://localhost:4317"
_OF_SIGNALS = "/v1/"
_SIGNALS = ("traces", "metrics", "logs")


@dataclass(frozen=True)
class OtelOptions:
    """How spans are made and sent. `rate` is the share of traces that begin here and are kept; with `by_parent` those
    that began elsewhere are kept where they were kept there. `signals` are what is sent of `traces` and `metrics`;
    `instrumented` names libraries.
    """

    resource: Mapping[str, str]
    endpoint: str | None = None
    protocol: str = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 10.0
    rate: float = 1.0
    by_parent: bool = True
    queue_size: int = 2048
    batch_size: int = 512
    delay_seconds: float = 5.0
    flush_seconds: float = 1.0
    metrics_interval_seconds: float = 60.0
    signals: frozenset[str] = frozenset({"traces", "metrics"})
    instrumented: tuple[str, ...] = ()

    def http_endpoint(self, signal: str) -> str:
        """Where a signal goes over HTTP: a path of its own under the endpoint, unless that is one already."""
        parts = _parts(self.endpoint or _HTTP)
        path = parts.path.rstrip("/")
        for other in _SIGNALS:  # Somebody may have given that of one.
            path = path.removesuffix(_OF_SIGNALS + other)
        return urlunsplit(parts._replace(path=f"{path}{_OF_SIGNALS}{signal}"))

    @property
    def grpc_endpoint(self) -> str:
        """Where all signals go over gRPC."""
        parts = _parts(self.endpoint or _GRPC)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def shown_endpoint(self) -> str:
        """The collector, without what may be secret."""
        parts = _parts(self.endpoint or (_GRPC if self.protocol == "grpc" else _HTTP))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _parts(endpoint: str) -> SplitResult:
    return urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
