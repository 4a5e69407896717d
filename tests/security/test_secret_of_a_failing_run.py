"""A secret that a run fails by is in no line, span, number, event or answer: a wrong password, an address, a nested one."""

import base64
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.collector import collecting
from tests.e2e.api import headrace, serving
from tests.e2e.projects import people_pipeline, with_people, write
from tests.servers import PostgresServer

CANARY = 'c4n4ry-"p@ss/w+rd"=é'
FORMS = (
    CANARY,
    quote(CANARY, safe=""),
    json.dumps(CANARY)[1:-1],
    json.dumps(CANARY, ensure_ascii=False)[1:-1],
    base64.b64encode(CANARY.encode()).decode(),
)
STEP = """
import logging, os

def fails(batch):
    secret = os.environ["SECRET_SHOP"]
    logging.getLogger("theirs").warning("options %s", {"store": {"options": [{"password": secret}]}})
    raise ValueError(f"postgresql://me:{secret}@shop:5432/x refused password='{secret}' {secret!r}")
"""


@pytest.fixture
def server_with_passwords() -> PostgresServer:
    """A server that lets `me` in by a password alone."""
    server = PostgresServer()
    server.start()
    server.psql("CREATE ROLE me LOGIN PASSWORD 'another'")
    hba = Path(server.psql("SHOW hba_file").strip().splitlines()[-1].strip())
    hba.write_text("host all me all scram-sha-256\n" + hba.read_text())
    server.psql("SELECT pg_reload_conf()")
    return server


@pytest.mark.line("31")
def test_secret_by_which_a_run_fails_is_told_nowhere(project: Path, server_with_passwords: PostgresServer) -> None:
    with_people(project)
    write(project, "python/steps.py", STEP)
    write(
        project,
        "connections/shop.yaml",
        "version: 1\nconnection: shop\nkind: postgres\n"
        f"options: {{host: 127.0.0.1, port: {server_with_passwords.port}, database: postgres, user: me}}\n"
        'secrets: {password: "env:SECRET_SHOP"}\n',
    )
    write(project, "pipelines/people.yaml", people_pipeline(connection="shop") + "retry: {attempts: 0}\n")
    write(
        project,
        "pipelines/step.yaml",
        "version: 1\npipeline: step\nsource: {connection: landing, path: people.csv, key: [id]}\n"
        "transform: [{python: 'local.steps:fails'}]\ndestination: {table: step}\nretry: {attempts: 0}\n",
    )
    told: dict[str, str] = {}
    try:
        with collecting() as collector:
            settings = collector.environment(SECRET_SHOP=CANARY, HEADRACE_LOGS__FORMAT="json", OTEL_LOG_LEVEL="debug")
            with serving(project, **settings) as server:
                told["apply"] = _output(headrace(project, "apply", "--yes", **settings))
                assert "error" not in told["apply"], told["apply"]
                codes = []
                for name in ("people", "step"):
                    run = server.call("POST", f"/v1/pipelines/{name}/trigger", {}).body
                    ended = server.wait_for(run["id"])
                    codes.append(ended["error"]["code"])
                    told[name] = json.dumps(ended)
                    told[f"logs {name}"] = json.dumps(server.call("GET", f"/v1/runs/{run['id']}/logs").body)
                    told[f"show {name}"] = _output(headrace(project, "runs", "show", run["id"], **settings))
                told["test"] = _output(headrace(project, "connections", "test", "shop", **settings))
                told["metrics"] = str(server.call("GET", "/metrics").body)
                told["ready"] = json.dumps(server.call("GET", "/ready").body)
                assert server.stop() == 0
            told["spans"] = b"".join(collector.raw).decode("utf-8", "replace")
    finally:
        server_with_passwords.stop()
    told["log"] = (project / "up.log").read_text()

    assert codes == ["store.sign_in", "transform.python"]
    assert "theirs" in told["log"]
    assert len(collector.spans) > 5
    found = {
        place for place, text in told.items() for form in FORMS if form in text or re.search(r"c4n4ry|p@ss|w\+rd", text)
    }
    assert found == set()


def _output(done: object) -> str:
    return f"{getattr(done, 'stdout', '')}{getattr(done, 'stderr', '')}"
