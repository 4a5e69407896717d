"""The reference of metrics in Markdown, made of the list that the code counts by."""

from domain.metrics import METRICS


def metrics_reference() -> str:
    """Write it."""
    lines = [
        "# Metrics",
        "",
        "Generated from `domain/metrics.py` by",
        "`python -m infrastructure.observability.metrics_reference`; a test compares.",
        "",
        "Each process shows its own at `GET /metrics`, under the name in the second column; where telemetry is on, the",
        "collector is sent the same under the name in the first. A histogram has `_bucket`, `_sum` and `_count`.",
        "",
        "| name | at `/metrics` | kind | unit | labels | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (
            f"`{metric.name}`",
            f"`{metric.prometheus_name}`",
            metric.kind.value,
            metric.unit,
            labels,
            metric.meaning,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(metrics_reference(), end="")
