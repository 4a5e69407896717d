"""Copy `orders` to `dlt_bench.orders` in one Postgres with dlt; prints version and seconds. Runs in dlt's own
environment.
"""

import os
import sys
import tempfile
import time

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt  # type: ignore[import-not-found]
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]

URL, BACKEND = sys.argv[1], sys.argv[2]

pipeline = dlt.pipeline(
    "bench",
    destination=dlt.destinations.postgres(URL),
    dataset_name="dlt_bench",
    pipelines_dir=tempfile.mkdtemp(),
)
started = time.perf_counter()
source = sql_table(URL, "orders", schema="public", backend=BACKEND, chunk_size=100_000)
pipeline.run(source, write_disposition="replace")
print(dlt.__version__, time.perf_counter() - started)
