"""The libraries whose calls are spans, by their instrumentations; those are of the process, whoever makes a client."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.sdk.trace import TracerProvider

from infrastructure.log import log


def _without_query(url: str) -> str:
    """Neither who signs in nor what is asked for: both hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_KNOWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sqlalchemy": ("infrastructure.observability.statements", "StatementInstrumentor", {}),
    "redis": ("opentelemetry.instrumentation.redis", "RedisInstrumentor", {}),
    "aiokafka": ("opentelemetry.instrumentation.aiokafka", "AIOKafkaInstrumentor", {}),
    "urllib3": (
        "opentelemetry.instrumentation.urllib3",
        "URLLib3Instrumentor",
        {"url_filter": _without_query, "captured_request_headers": (), "captured_response_headers": ()},
    ),
}


def instrument(names: Sequence[str], provider: TracerProvider) -> Callable[[], None]:
    """Let calls of these libraries be spans; what is returned ends that. One that is not installed is told of once."""
    instrumented = []
    for name in names:
        module, kind, options = _KNOWN[name]
        try:
            instrumentor = getattr(import_module(module), kind)()
        except ModuleNotFoundError as error:
            log.warning("telemetry.not_instrumented", library=name, message=f"{error.name} is not installed.")
            continue
        instrumentor.instrument(tracer_provider=provider, **options)
        instrumented.append(instrumentor)

    def end() -> None:
        for instrumentor in reversed(instrumented):
            instrumentor.uninstrument()

    return end
