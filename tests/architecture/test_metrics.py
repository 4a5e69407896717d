"""What is counted, what is declared and what is documented are the same."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.metrics import METRICS, METRICS_BY_NAME, MetricKind
from infrastructure.observability.metrics_reference import metrics_reference

ROOT = Path(__file__).parents[2]
_SAYS = {"count": MetricKind.COUNTER, "observe": MetricKind.HISTOGRAM, "gauge": MetricKind.GAUGE}


def said() -> Iterator[tuple[str, str]]:
    """The metrics that the code names, and how it says them."""
    for folder in ("application", "entrypoints", "infrastructure"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
                function = call.func
                name = getattr(function, "attr", None) or getattr(function, "id", "")
                first = call.args[0] if len(call.args) == 3 else None
                if name in _SAYS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value, name


def test_reference_of_metrics_is_the_generated_one() -> None:
    assert (ROOT / "docs/reference/metrics.md").read_text() == metrics_reference()


def test_every_metric_that_is_counted_is_declared_and_the_other_way_round() -> None:
    found = set(said())

    assert {name for name, _ in found} == set(METRICS_BY_NAME)
    assert {(name, METRICS_BY_NAME[name].kind) for name, _ in found} == {(name, _SAYS[way]) for name, way in found}


def test_metrics_are_named_and_labelled_as_prometheus_has_it() -> None:
    names = [metric.prometheus_name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    labels = {label for metric in METRICS for label in metric.labels}
    assert labels == {
        *("organization", "pipeline", "status", "rule", "column", "verdict", "violation"),
        *("route", "method", "part", "state", "reason"),
    }
    assert all(metric.meaning.endswith(".") for metric in METRICS)
    assert all((metric.kind is MetricKind.HISTOGRAM) == bool(metric.buckets) for metric in METRICS)


ALERTS = ROOT / "deploy/prometheus/alerts.yaml"


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_alert_names_series_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    known = {metric.prometheus_name: set(metric.labels) | {"instance", "le"} for metric in METRICS}
    words = re.findall(r"[a-z]+(?:_[a-z]+)+", re.sub(r'"[^"]*"', "", rule["expr"]))
    labels = set().union(*(known[word] for word in words))
    named = set(re.findall(r"([a-z_]+)=~?\"", rule["expr"]))
    for listed in re.findall(r"by \(([^)]*)\)", rule["expr"]):
        named |= {label.strip() for label in listed.split(",")}

    assert words
    assert named | set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"]))) <= labels
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["annotations"]["action"].endswith(".")


def test_alerts_name_commands_and_settings_that_exist() -> None:
    from infrastructure.settings.reference import catalog

    settings = {name for info in catalog() for name in info.names} | {"HEADRACE_HOME"}
    actions = " ".join(rule["annotations"]["action"] for rule in alerts())
    assert set(re.findall(r"\b(?:HEADRACE|OTEL|DB)_[A-Z_]+", actions)) <= settings
    code = "".join(path.read_text() for path in (ROOT / "entrypoints/cli").glob("*.py"))
    for command in re.findall(r"`headrace [a-z]* ?([a-z]+)", actions):
        assert f'"{command}"' in code or f"def {command}" in code, command


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_alerts_fire_when_they_should_and_not_otherwise(arguments: tuple[str, ...]) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: make system brings it")
    done = subprocess.run([program, *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
