"""Claims and ends runs while many others are queued: half of them in one lane, half in lanes of their own.

A process of its own, so that its peak memory is its own. Arguments: a URL, how many runs are queued.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import uvloop
from sqlalchemy import text

from domain.identity.scope import PLATFORM
from domain.runs.run import Finish, Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef
from infrastructure.metadata.lease_holders import this_process
from infrastructure.metadata.records import SqlRecords
from infrastructure.runtime import RandomIdentifiers

ROUNDS = 200
QUEUE = """
INSERT INTO runs (org_id, id, work_kind, work_name, revision, lane, state, request, fence, attempt, requested_by,
                  cancel_requested, not_before, rung_at, created_at)
SELECT 'one', gen_random_uuid()::text, 'pipeline', 'p' || (g % 50), 1,
       CASE WHEN g % 2 = 0 THEN 'main' ELSE 'params:' || g END, 'queued',
       '{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false}', 0, 0, 'bench', false, 0,
       extract(epoch from clock_timestamp()), now()
FROM generate_series(1, :queued) g
"""


async def main(url: str, queued: int) -> None:
    records = SqlRecords(url.replace("postgresql://", "postgresql+asyncpg://"))
    await records.open()
    identifiers, owner, lease = RandomIdentifiers(), this_process(), timedelta(seconds=30)
    async with records.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        for number in range(50):
            await unit.pipelines.put("one", f"p{number}", {"pipeline": f"p{number}"}, "bench")
        await unit.runs._connection.execute(text(QUEUE), {"queued": queued})  # type: ignore[attr-defined]
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        await unit.runs._connection.execute(text("ANALYZE runs"))  # type: ignore[attr-defined]
        await unit.commit()
    times = []
    for number in range(ROUNDS):
        work = WorkRef(WorkKind.PIPELINE, f"p{number % 50}", 1)
        run = Run(identifiers.new_id(), "one", work, f"own:{number}", RunState.QUEUED, RunRequest())
        async with records.unit(PLATFORM) as unit:
            await unit.runs.insert(run)
            await unit.commit()
        begun = time.perf_counter()
        async with records.unit(PLATFORM) as unit:
            claimed = await unit.runs.claim(run.id, owner=owner, lease=lease)
            await unit.commit()
        assert claimed is not None
        async with records.unit(PLATFORM) as unit:
            await unit.runs.finish_many([Finish(run.id, claimed.fence, RunState.SUCCEEDED, "published")])
            await unit.runs.next_in_lanes([run.id])
            await unit.commit()
        async with records.unit(PLATFORM) as unit:
            await unit.runs.claimable(unrung_since=lease, limit=4)
        times.append((time.perf_counter() - begun) * 1000)
    await records.close()
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"milliseconds": sorted(times)[ROUNDS // 2], "peak_mb": peak}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
