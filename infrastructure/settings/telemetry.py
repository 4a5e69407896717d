"""The settings of OpenTelemetry: the names of the user's documents, and OpenTelemetry's own."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from infrastructure.pairs import pairs
from infrastructure.settings.parts import Int, Section, setting


def _endpoint(text: str) -> str:
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # Of its port, which it would show.
        is_one = False
    if not is_one or not text.isprintable() or " " in text:
        raise ValueError("must be an address such as http://collector:4318")
    return text


def _pairs(text: str) -> str:
    pairs(text)
    return text


def _secret_pairs(value: SecretStr) -> SecretStr:
    pairs(value.get_secret_value())
    return value


class TelemetrySettings(Section):
    """What OpenTelemetry is told."""

    enabled: bool | None = setting(
        None,
        "Send traces and metrics over OTLP. When not set, they are sent where OTEL_EXPORTER_OTLP_ENDPOINT is given.",
        env="OTEL_ENABLED",
    )
    sdk_disabled: bool = setting(
        False, "Send nothing, whatever else is set: OpenTelemetry's own switch.", env="OTEL_SDK_DISABLED"
    )
    traces_exporter: Literal["otlp", "none"] = setting(
        "otlp", "What traces are sent by, where anything is; none keeps them here.", env="OTEL_TRACES_EXPORTER"
    )
    metrics_exporter: Literal["otlp", "none"] = setting(
        "otlp",
        "What metrics are sent by, where anything is; /metrics has them either way.",
        env="OTEL_METRICS_EXPORTER",
    )
    service_name: str | None = setting(None, "The service's name; by default APP_NAME.", env="OTEL_SERVICE_NAME")
    resource_attributes: Annotated[str, AfterValidator(_pairs)] | None = setting(
        None,
        "What else is said of this process, as name=value,name=value; it wins over what Headrace says itself.",
        env="OTEL_RESOURCE_ATTRIBUTES",
    )
    exporter_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = setting(
        None,
        "The collector, such as http://collector:4318; by default port 4318 of this machine, or 4317 for grpc. Over "
        "HTTP, /v1/traces and the like are added.",
        env=("OTEL_EXPORTER_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    protocol: Literal["grpc", "http/protobuf"] = setting(
        "http/protobuf", "How to send; grpc needs the extra otlp-grpc.", env="OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    headers: Annotated[SecretStr, AfterValidator(_secret_pairs)] | None = setting(
        None, "Headers to send, such as a key, as name=value,name=value.", env="OTEL_EXPORTER_OTLP_HEADERS"
    )
    timeout_ms: Annotated[Int, Field(ge=100, le=600_000)] = setting(
        10_000,
        "Milliseconds that the collector may take for one request, retries included.",
        env="OTEL_EXPORTER_OTLP_TIMEOUT",
    )
    sampling_rate: Annotated[float, Field(ge=0, le=1)] = setting(
        1.0,
        "Share of the traces that begin here and are kept; those that a caller with a key, or TRACEPARENT, began are "
        "kept where they were kept there.",
        env=("OTEL_SAMPLING_RATE", "OTEL_TRACES_SAMPLER_ARG"),
    )
    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = setting(
        "parentbased_traceidratio",
        "How OpenTelemetry names the choice; OTEL_SAMPLING_RATE is the ratio of those that have one.",
        env="OTEL_TRACES_SAMPLER",
    )
    queue_size: Annotated[Int, Field(ge=1, le=1_000_000)] = setting(
        2048, "Spans that wait to be sent; more are dropped and counted.", env="OTEL_BSP_MAX_QUEUE_SIZE"
    )
    batch_size: Annotated[Int, Field(ge=1, le=100_000)] = setting(
        512, "Spans of one request to the collector.", env="OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    )
    delay_ms: Annotated[Int, Field(ge=10, le=600_000)] = setting(
        5000, "Milliseconds that a span waits for others to be sent with it.", env="OTEL_BSP_SCHEDULE_DELAY"
    )
    flush_ms: Annotated[Int, Field(ge=0, le=60_000)] = setting(
        1000,
        "Milliseconds that the end of a process waits for what is left to be sent; 200 at most where the collector was "
        "in trouble before.",
    )

    metrics_interval_ms: Annotated[Int, Field(ge=100, le=3_600_000)] = setting(
        60_000, "Milliseconds between two sendings of the metrics.", env="OTEL_METRIC_EXPORT_INTERVAL"
    )

    @property
    def is_on(self) -> bool:
        """Whether anything is sent."""
        wanted = self.exporter_endpoint is not None if self.enabled is None else self.enabled
        return wanted and not self.sdk_disabled and "otlp" in (self.traces_exporter, self.metrics_exporter)

    @property
    def exporter(self) -> Literal["none", "otlp"]:
        """Who is told."""
        return "otlp" if self.is_on else "none"

    @property
    def rate(self) -> float:
        """The share of traces that begin here and are kept."""
        fixed = {"always_on": 1.0, "always_off": 0.0}
        return fixed.get(self.sampler.removeprefix("parentbased_"), self.sampling_rate)

    @property
    def by_parent(self) -> bool:
        """Whether traces that began elsewhere are kept where they were kept there."""
        return self.sampler.startswith("parentbased_")
