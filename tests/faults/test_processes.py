"""One `api` and several `worker` on Postgres and a broker: killed, drained, stopped; nothing is lost or doubled."""

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from adbc_driver_postgresql import dbapi

from tests.e2e.api import SLOW_BATCHES, headrace
from tests.faults.installation import Installation, assert_exact, installed, trigger, with_copies

QUEUES = ("redis", "kafka")


@pytest.mark.invariant("L1", "L4", "L5", "Q1", "Q2", "Q3", "D1")
@pytest.mark.parametrize("queue", QUEUES)
def test_two_workers_share_the_runs_and_either_may_be_killed(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    chance = random.Random(20261125)
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 4)
        server = made.api()
        workers = [made.worker(), made.worker()]
        asked = []
        for round_number in range(4):
            for _ in range(8):
                asked.append(trigger(server, f"copy{chance.randrange(4)}"))
            victim = chance.randrange(2)
            time.sleep(chance.uniform(0.0, 0.4))
            assert workers[victim].kill() == -9
            workers[victim] = made.worker()
            assert None not in asked, round_number

        states = made.wait_until_done(len(asked), seconds=90)

        assert states == {"succeeded": len(asked)}
        assert_exact(made, 4)
        performed = {row[0] for row in made.records("SELECT actor FROM run_transitions WHERE reason = 'claimed'")}
        assert len(performed) >= 2
        assert [worker.stop() for worker in workers] == [0, 0]
        assert server.stop() == 0


@pytest.mark.invariant("Q1", "Q2", "Q3", "A1", "D1")
@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    ("role", "point"),
    [
        ("api", "api.after_commit_before_response:1"),
        ("api", "enqueue.after_commit_before_publish:1"),
        ("api", "queue.after_publish:1"),
        ("worker", "claim.after_update:1"),
        ("worker", "claim.before_ack:1"),
        ("worker", "batch.before_commit:3"),
        ("worker", "finish.before_state:1"),
    ],
)
def test_process_killed_at_a_point_leaves_a_run_that_ends_well(
    queue: str, role: str, point: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1)
        failpoint = {"HEADRACE_FAILPOINT": f"{point}:kill"}
        server = made.api(**(failpoint if role == "api" else {}))
        worker = made.worker(**(failpoint if role == "worker" else {}))
        trigger(server, "copy0")
        dying = server.process if role == "api" else worker.popen
        assert dying.wait(timeout=30) == -9
        made.worker()
        if role == "api":
            made.api()

        assert made.wait_until_done(1) == {"succeeded": 1}
        assert_exact(made, 1)


@pytest.mark.invariant("Q5", "Q2", "D1")
@pytest.mark.parametrize("queue", ["kafka"])
def test_workers_that_come_and_go_neither_block_nor_double(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 3)
        server = made.api()
        workers = [made.worker()]
        asked = []
        for _ in range(3):
            asked += [trigger(server, f"copy{number}") for number in range(3)]
            workers.append(made.worker())  # The partitions are dealt again.
            asked += [trigger(server, f"copy{number}") for number in range(3)]
            assert workers.pop(0).stop() == 0  # And again, by who leaves.

        assert made.wait_until_done(len(asked), seconds=60) == {"succeeded": len(asked)}
        assert_exact(made, 3)


@pytest.mark.invariant("L3")
@pytest.mark.parametrize("queue", ["redis"])
def test_batch_that_computes_for_long_keeps_its_lease(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1, rows=300, batch_rows=300)
        text = (project / "pipelines/copy0.yaml").read_text()
        slow = "length(regexp_replace(repeat(note, 20000), '[a-f]+', 'x', 'g'))"
        text = text.replace("select * from batch", f'"select *, {slow} as n from batch"')
        (project / "pipelines/copy0.yaml").write_text(text)
        made.apply()
        server = made.api()
        made.worker(HEADRACE_RUN__LEASE_SECONDS="1")
        made.worker(HEADRACE_RUN__LEASE_SECONDS="1")
        run_id = trigger(server, "copy0")

        ended = server.wait_for(str(run_id), seconds=60)

        assert ended["report"]["seconds"] > 2, "the batch was too quick to tell"
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
        reasons = [row[0] for row in made.records("SELECT reason FROM run_transitions ORDER BY id")]
        assert reasons == ["requested", "claimed", "published"]


@pytest.mark.invariant("X1", "X2", "R1")
@pytest.mark.parametrize("queue", ["redis"])
def test_drain_by_api_and_by_file_releases_runs_for_others(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str, tmp_path: Path
) -> None:
    drain_file = tmp_path / "spot-notice"
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 2, rows=20_000, batch_rows=100)
        server = made.api()
        first = made.worker("--port", "0", HEADRACE_WORKER__DRAIN_FILE=str(drain_file), HEADRACE_FAILPOINT=SLOW_BATCHES)
        ready = next(line for line in first.lines() if line.get("event") == "process.ready")
        assert urllib3.request("GET", f"{ready['url']}/ready").status == 200
        assert urllib3.request("GET", f"{ready['url']}/health").status == 200
        assert urllib3.request("GET", f"{ready['url']}/metrics").status == 200
        trigger(server, "copy0")
        while made.query("SELECT count(*) FROM pg_class WHERE relname = 'copy0'") == [(0,)]:
            time.sleep(0.01)
        drain_file.touch()
        assert first.popen.wait(timeout=20) == 0
        assert made.states() == {"queued": 1}
        refused = headrace(project, "worker", HEADRACE_WORKER__DRAIN_FILE=str(drain_file), **made.settings)
        assert (refused.returncode, "server.drained" in refused.stderr) == (3, True)

        second = made.worker(HEADRACE_FAILPOINT=SLOW_BATCHES)
        trigger(server, "copy1")
        workers: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while not workers and time.monotonic() < deadline:  # It registers once it is up.
            listed = server.call("GET", "/v1/workers").body
            workers = [item for item in listed["items"] if item["roles"] == ["worker"]]
        assert listed["queue_depth"] is not None
        assert len(workers) == 1
        assert server.call("POST", "/v1/workers/unknown/drain").status == 404
        assert server.call("POST", f"/v1/workers/{workers[0]['id']}/drain").status == 202
        assert second.popen.wait(timeout=20) == 0
        assert set(made.states()) == {"queued"}
        made.worker()

        assert made.wait_until_done(2) == {"succeeded": 2}
        assert_exact(made, 2, rows=20_000)
        reasons = {row[0] for row in made.records("SELECT reason FROM run_transitions")}
        assert "drained" in reasons
        assert "lease_expired" not in reasons


@pytest.mark.invariant("X1", "X2", "D1")
@pytest.mark.parametrize("queue", ["redis"])
def test_sigterm_under_load_exits_with_0_and_loses_no_request(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 3, rows=5000, batch_rows=100)
        answered: list[str] = []
        broken: list[str] = []
        for _ in range(3):
            server, worker = made.api(), made.worker()
            until = threading.Event()

            def ask(server: object = server, until: threading.Event = until) -> None:
                while not until.is_set():
                    try:
                        answer = server.call("POST", f"/v1/pipelines/copy{random.randrange(3)}/trigger", {})  # type: ignore[attr-defined]
                    except urllib3.exceptions.NewConnectionError:
                        return  # Nobody listens any more: it was never taken.
                    except urllib3.exceptions.HTTPError as error:
                        broken.append(repr(error))
                        return
                    if answer.status == 503:
                        assert answer.body["code"] == "server.stopping"
                        return  # It was told that it was not taken.
                    answered.append(answer.body["id"])
                    time.sleep(0.05)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            started = time.monotonic()
            worker.popen.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
            codes = [server.process.wait(timeout=20), worker.popen.wait(timeout=20)]
            until.set()
            for thread in threads:
                thread.join()
            assert codes == [0, 0], worker.said()[-2000:]
            assert time.monotonic() - started < 10
        made.worker()

        states = made.wait_until_done(len(answered), seconds=90)

        assert broken == []
        assert set(states) == {"succeeded"}
        stored = {row[0] for row in made.records("SELECT id FROM runs")}
        assert set(answered) <= stored
        assert_exact(made, 3, rows=5000)


@pytest.mark.invariant("X2", "X3")
@pytest.mark.parametrize("queue", ["redis"])
@pytest.mark.parametrize("signals", [1, 2])
def test_stuck_run_is_interrupted_before_the_grace_and_a_second_signal_stops_at_once(
    queue: str, signals: int, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    grace = {"HEADRACE_HTTP__GRACE_SECONDS": "6"}
    with installed(project, postgres_database, queue_settings, **grace) as made:
        with_copies(made, 1, rows=20_000, batch_rows=100)
        server = made.api()
        worker = made.worker("--port", "0", HEADRACE_FAILPOINT=SLOW_BATCHES)
        probes = next(line["url"] for line in worker.lines() if line.get("event") == "process.ready")
        trigger(server, "copy0")
        _until_loading(made)
        with dbapi.connect(postgres_database) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE copy0 IN SHARE MODE")  # Its next batch waits for this.
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while not made.query(waiting):
                time.sleep(0.01)
            started = time.monotonic()
            for _ in range(signals):
                worker.popen.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            if signals == 1:  # True at every moment: it lives, and takes nothing any more.
                assert urllib3.request("GET", f"{probes}/ready", retries=False).status == 503
                assert urllib3.request("GET", f"{probes}/health", retries=False).status == 503
            code = worker.popen.wait(timeout=20)
            took = time.monotonic() - started
            connection.rollback()
        made.worker()

        assert (code, took < (6 if signals == 1 else 2)) == (0 if signals == 1 else 128 + signal.SIGTERM, True)
        assert made.wait_until_done(1) == {"succeeded": 1}
        assert_exact(made, 1, rows=20_000)
        reasons = [row[0] for row in made.records("SELECT reason FROM run_transitions ORDER BY id")]
        assert ("stopped" if signals == 1 else "lease_expired") in reasons


@pytest.mark.invariant("X1", "D1")
@pytest.mark.parametrize("queue", ["redis"])
@pytest.mark.parametrize("point", ["drain.start:1", "drain.last_second:1"])
def test_process_killed_while_it_drains_leaves_nothing_half_done(
    queue: str, point: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1, rows=20_000, batch_rows=100)
        server = made.api()
        worker = made.worker(HEADRACE_FAILPOINT=f"{point}:kill,{SLOW_BATCHES}")
        trigger(server, "copy0")
        _until_loading(made)
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.popen.wait(timeout=20) == -9
        made.worker()

        assert made.wait_until_done(1) == {"succeeded": 1}
        assert_exact(made, 1, rows=20_000)


@pytest.mark.invariant("L2", "L4", "D1")
@pytest.mark.parametrize("queue", ["redis"])
def test_worker_whose_renewals_are_lost_stops_by_its_own_clock(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1, rows=20_000, batch_rows=100)
        server = made.api()
        lost = made.worker(HEADRACE_FAILPOINT=f"lease.renew_lost:1+:raise,{SLOW_BATCHES}")
        trigger(server, "copy0")
        _until_loading(made)
        made.worker()

        assert made.wait_until_done(1, seconds=90) == {"succeeded": 1}
        assert_exact(made, 1, rows=20_000)
        reasons = [row[0] for row in made.records("SELECT reason FROM run_transitions ORDER BY id")]
        assert "lease_expired" in reasons
        assert lost.popen.poll() is None  # It lives on, and takes other runs.
        assert lost.stop() == 0


@pytest.mark.invariant("C1")
@pytest.mark.parametrize("queue", ["redis"])
def test_cancel_survives_the_death_of_whoever_asked_and_of_the_worker(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1, rows=20_000, batch_rows=100)
        server = made.api(HEADRACE_FAILPOINT="cancel.after_flag:1:kill")
        worker = made.worker(HEADRACE_FAILPOINT=SLOW_BATCHES)
        run_id = trigger(server, "copy0")
        _until_loading(made)
        with pytest.raises(urllib3.exceptions.HTTPError):
            server.call("POST", f"/v1/runs/{run_id}/cancel")
        assert server.process.wait(timeout=10) == -9
        worker.kill()
        made.worker()

        assert made.wait_until_done(1) == {"cancelled": 1}
        ends = made.records("SELECT count(*) FROM run_transitions WHERE after = 'cancelled'")
        assert ends == [(1,)]
        assert made.query("SELECT count(*) = count(DISTINCT id) FROM copy0") == [(True,)]
        shown = headrace(project, "runs", "logs", str(run_id), "--json", **made.settings)
        events = [line["event"] for line in json.loads(shown.stdout)["items"]]
        assert events[0] in ("run.queued", "pipeline.queued")
        assert "run.cancelled" in events


def _until_loading(made: Installation) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if made.query("SELECT count(*) FROM pg_class WHERE relname = 'copy0'") == [(1,)] and made.query(
            "SELECT count(*) > 0 FROM copy0"
        ) == [(True,)]:
            return
        time.sleep(0.01)
    raise AssertionError("nothing was loaded")
